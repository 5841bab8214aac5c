"""Prompt banks: label embeddings in one file, made of templates or taught by pictures."""
