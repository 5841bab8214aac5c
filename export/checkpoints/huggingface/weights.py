"""The tensors of a Hugging Face folder: safetensors, else the older pickles; with an adapter merged if one is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipedge.export.checkpoints.adapters import open_adapter
from clipedge.export.checkpoints.checkpoint import ModelSource
from clipedge.export.checkpoints.tensors import WEIGHTS_FILE, Stored, find_weight_files, open_pickle, open_safetensors

__all__ = ["FolderWeights", "open_folder_weights"]

PICKLE = "pytorch_model.bin"


@dataclass(frozen=True, eq=False)
class FolderWeights:
    """``files`` are all that the tensors come from."""

    files: Sequence[Path]
    stored: Stored


def open_folder_weights(folder: Path, source: ModelSource) -> FolderWeights:
    """Open the folder's weights, and merge ``source.adapter`` into them.

    Raises CheckpointError when they are missing or damaged, or the adapter is, or is of another model.
    """
    weights = _open_base(folder)
    if source.adapter is None:
        return weights
    adapter = open_adapter(Path(source.adapter))
    return FolderWeights([*weights.files, adapter.weights_file], adapter.merge(weights.stored))


def _open_base(folder: Path) -> FolderWeights:
    if _has(folder, PICKLE) and not _has(folder, WEIGHTS_FILE):
        files = find_weight_files(folder, PICKLE)
        return FolderWeights(files, {name: entry for file in files for name, entry in open_pickle(file).items()})
    files = find_weight_files(folder)
    return FolderWeights(files, open_safetensors(files))


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file() or (folder / f"{name}.index.json").is_file()
