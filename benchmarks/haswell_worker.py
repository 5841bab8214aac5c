"""One backend on a processor, emulated or real: answers and what was seen of the processor. Run by haswell.py.

    python benchmarks/haswell_worker.py BUNDLE BACKEND FOLDER

Reads FOLDER/pixels.npy and FOLDER/product.onnx, writes FOLDER/embeds.npy, prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

import clipedge
from clipedge.backends.cpu import has_vnni

BATCH = 8


def products_saturate(model: Path) -> bool:
    """Whether the largest u8 x s8 products come out wrong in ONNX Runtime's default kernels here."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"bytes": np.full((1, session.get_inputs()[0].shape[1]), 255, np.uint8)})
    return bool((found != 255 * 127 * session.get_inputs()[0].shape[1]).any())


def main(bundle: str, backend: str, folder: Path) -> None:
    """Embed the pixels batch by batch; the bundle's own self-test runs first."""
    begin = time.perf_counter()
    engine = clipedge.load(bundle, backend=backend).image_engine
    loaded = time.perf_counter()
    pixels = np.load(folder / "pixels.npy")
    embeds = [engine(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    ended = time.perf_counter()
    np.save(folder / "embeds.npy", np.concatenate(embeds))
    facts = {
        "arithmetic": engine.arithmetic,
        "has_vnni": has_vnni(),
        "saturates": products_saturate(folder / "product.onnx"),
        "load_seconds": loaded - begin,
        "embed_seconds": ended - loaded,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
