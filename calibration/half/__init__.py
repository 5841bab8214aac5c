"""A float32 graph -> the same graph in half precision (float16), and what half precision makes of its answers.

``pixels.py`` brings pixels into the range of half precision, ``magnitudes.py`` measures how large the graph's tensors
become, ``plan.py`` decides by that what has to stay in float32, ``convert.py`` writes the graph, and ``evaluate.py``
computes it as it was written, which engines on a CPU do not.
"""
