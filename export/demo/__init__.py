"""The demonstration checkpoint: a small CLIP model in Hugging Face's layout, and the code that trains it."""
