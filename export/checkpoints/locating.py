"""Bringing what a user named onto this machine: a path, a model on a hub, or an adapter and the model it belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints.adapters import ADAPTER_CONFIG, open_adapter
from clipedge.export.checkpoints.checkpoint import ModelSource
from clipedge.export.checkpoints.hub import fetch, parse_hub_name

__all__ = ["Located", "locate"]

WEIGHTS_ENDINGS = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True)
class Located:
    """Where a model lies. ``source`` has paths of this machine only; ``name`` is what to call the model and
    ``revision`` the commit of a model on a hub."""

    path: Path
    source: ModelSource
    name: str
    revision: str | None


def locate(source: ModelSource) -> Located:
    """Find a folder or file; what is none, but may be the name of a model on a hub, is fetched from there.

    Raises CheckpointError when there is neither, or the download fails.
    """
    found = _locate(source)
    if not (found.path / ADAPTER_CONFIG).is_file():
        return found
    adapter = open_adapter(found.path)
    try:
        base = _locate(ModelSource(adapter.base, revision=adapter.revision))
    except CheckpointError as error:
        raise CheckpointError(
            f"{found.path / ADAPTER_CONFIG}: base_model_name_or_path is {adapter.base}: {error}"
        ) from None
    merged = dataclasses.replace(source, model=str(base.path), adapter=str(found.path), revision=None)
    return Located(base.path, merged, found.name, found.revision)


def _locate(source: ModelSource) -> Located:
    path = Path(source.model)
    if path.is_dir() or (path.is_file() and path.suffix in WEIGHTS_ENDINGS):
        if source.revision:
            raise UsageError(f"{path} is on this machine; a revision is of a model on a hub: leave it out")
        # Not resolved, a file: hubs' caches link to files without an ending.
        path = path.resolve() if path.is_dir() else path.absolute()
        name = path.name if path.is_dir() else path.stem
        return Located(path, dataclasses.replace(source, model=str(path)), name, None)
    if path.exists():
        raise CheckpointError(
            f"{path} is no folder and no file of weights; expected the folder of a model, or a file that ends in "
            f"{', '.join(WEIGHTS_ENDINGS)}"
        )
    model = parse_hub_name(source.model, source.revision)
    if model is None:
        raise CheckpointError(
            f"there is no folder {path}; expected the path of a model, or its name on a hub: owner/name"
        )
    snapshot = fetch(model)
    local = dataclasses.replace(source, model=str(snapshot.path), revision=None)
    return Located(snapshot.path, local, model.repository, snapshot.commit)
