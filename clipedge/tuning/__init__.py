"""Prompt tuning: templates chosen and label embeddings moved by a few labelled pictures, kept if proven."""
