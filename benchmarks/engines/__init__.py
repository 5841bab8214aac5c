"""One file per runtime: each opens a contender's model and answers in the same few verbs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Embeddings", "Engine", "open_contender", "peer_engine"]

Embeddings = npt.NDArray[np.float32]

# The module that opens each contender; the part of the name behind the prefix says which of its models.
_MODULES = {"transformers": "eager", "ort": "ort", "openvino": "ov", "clipedge": "ours"}


@dataclass(frozen=True)
class Engine:
    """A loaded model and everything that is measured of it.

    ``tensors``: JPEG paths -> the batch as the engine takes it, which is not timed. ``embed``: batch -> (N, D).
    ``embed_pictures``: JPEG paths -> (N, D). ``label``: JPEG paths -> the index of each picture's label.
    ``note``: settings and versions, for the results.
    """

    tensors: Callable[[Sequence[Path]], npt.NDArray[np.generic]]
    embed: Callable[[npt.NDArray[np.generic]], Embeddings]
    embed_pictures: Callable[[Sequence[Path]], Embeddings]
    label: Callable[[Sequence[Path]], list[int]]
    note: str


def open_contender(name: str, folder: Path) -> Engine:
    """Load the contender called ``name`` from a shape's folder. Only its own runtime is imported."""
    prefix, _, model = name.partition("-")
    engine: Engine = import_module(f"engines.{_MODULES[prefix]}").open_engine(folder, model)
    return engine


def peer_engine(folder: Path, embed: Callable[[npt.NDArray[np.float32]], Embeddings], note: str) -> Engine:
    """A peer is a model over ``pixel_values``: around it come transformers' image processor and the label bank."""
    from engines.processor import load_processor, pixel_values

    processor = load_processor(folder / "checkpoint")
    labels = np.load(folder / "checkpoint" / "labels.npy")

    def embed_pictures(paths: Sequence[Path]) -> Embeddings:
        return embed(pixel_values(processor, paths))

    def label(paths: Sequence[Path]) -> list[int]:
        # A picture's length does not change which label is nearest, so nobody needs to normalise.
        best: list[int] = (embed_pictures(paths) @ labels.T).argmax(axis=1).tolist()
        return best

    return Engine(
        tensors=lambda paths: pixel_values(processor, paths),
        embed=embed,
        embed_pictures=embed_pictures,
        label=label,
        note=f"{note}; {type(processor).__name__}",
    )
