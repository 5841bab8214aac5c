"""Quantization-aware finishing: a tower's INT8 form is trained for some steps to give the float tower's embeddings.

    float graph + calibration -> the graph in torch, rounding as INT8 does -> training -> calibration with weights

``graph.py`` runs the very graph that ``clipedge.calibration.quantize`` puts its Q/DQ pairs into, ``rounding.py`` rounds
with gradients, ``layers.py`` has the layers that are in integers, and ``training.py`` trains them. What was trained,
integers, steps and all, is the calibration that the export writes: nothing is calibrated again.
"""

from clipedge.export.finishing.layers import check_tower
from clipedge.export.finishing.training import check_finish, finish

__all__ = ["check_finish", "check_tower", "finish"]
