"""ClipEdge: a bundle in one of its backends, through the interface that its users have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import clipedge
from clipedge.images.pixels import preprocess
from engines import Engine

BACKENDS = {"ort": "onnxruntime", "openvino": "openvino"}


def open_engine(folder: Path, model: str) -> Engine:
    """Load ``BACKEND-PRECISION[-fast]``."""
    backend, precision, *mode = model.split("-")
    bundle = folder / "clipedge" / precision
    clip = clipedge.load(bundle, backend=BACKENDS[backend], preprocess="fast" if mode else "exact")
    classifier = clip.classifier(clip.saved_bank("labels"))

    def label(paths: Sequence[Path]) -> list[int]:
        return [int(name) for name in classifier.predict(paths)]

    engine = clip.image_engine
    return Engine(
        tensors=lambda paths: preprocess(paths, clip.manifest.preprocessing),
        embed=engine,
        embed_pictures=clip.encode_image,
        label=label,
        note=f"clipedge {clipedge.__version__}, {engine.name} {engine.version}, {engine.arithmetic}",
    )
