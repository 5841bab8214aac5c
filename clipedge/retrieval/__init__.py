"""Indexes: a folder of vectors that is searched exactly or by lists, and only grows until it is compacted."""
