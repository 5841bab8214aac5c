"""Hugging Face folders, read without transformers where ClipEdge has towers of its own for them."""
