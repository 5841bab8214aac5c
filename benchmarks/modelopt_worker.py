"""FLOAT.onnx INPUTS.npy OUTPUT.onnx int8|fp8: quantize with NVIDIA's Model Optimizer, where that is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from clipedge.calibration.modelopt import quantize_with_modelopt
from clipedge.calibration.storage import save_model


def main() -> None:
    graph, inputs, output = map(Path, sys.argv[1:4])
    precision: Literal["int8", "fp8"] = "fp8" if sys.argv[4] == "fp8" else "int8"
    save_model(quantize_with_modelopt(onnx.load(graph), [np.load(inputs)], precision), output)


if __name__ == "__main__":
    main()
