"""Indexes: a folder of vectors that is searched exactly or by a graph, and only grows until it is compacted."""
