"""FLOAT.onnx INPUTS.npy OUTPUT.onnx: quantize with NVIDIA's Model Optimizer, where that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from clipedge.calibration.modelopt import quantize_with_modelopt
from clipedge.calibration.storage import save_model


def main() -> None:
    graph, inputs, output = map(Path, sys.argv[1:])
    save_model(quantize_with_modelopt(onnx.load(graph), [np.load(inputs)]), output)


if __name__ == "__main__":
    main()
