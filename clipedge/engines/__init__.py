"""Engines that are compiled on the device that runs them: how they are built and proven, and the cache that keeps them.

Nothing here has run on a GPU yet.
"""

# Scratch memory that TensorRT may plan with. It would plan with all there is, and a Jetson's 8 GB are the CPU's and the
# cameras', too. Layers of transformers need little.
WORKSPACE_BYTES = 1 << 30
