"""The demonstration checkpoint and the code that trains it."""
