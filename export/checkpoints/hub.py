"""Models from the Hugging Face hub (https://huggingface.co), or from the one that HF_ENDPOINT names.

The library huggingface_hub does the transfer: its cache (HF_HOME), its login (``hf auth login`` or HF_TOKEN), broken
connections taken up again by Range, HF_HUB_OFFLINE, progress bars on a terminal. Here is decided which files of a
repository are needed, and what to tell the user when they cannot be had.
"""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError, ClipEdgeError, MissingDependencyError, UsageError

__all__ = ["HubModel", "Snapshot", "fetch", "needed_files", "parse_hub_name"]

# The best first: pickles only where there is nothing else. OpenCLIP's come first because a repository of timm's has
# beside them the image tower alone as model.safetensors.
WEIGHTS = (
    "adapter_model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
CONFIGURATIONS = ("config.json", "open_clip_config.json", "adapter_config.json")
FURTHER = (
    *CONFIGURATIONS,
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "README.md",
)


@dataclass(frozen=True)
class HubModel:
    """A repository, "owner/name", and a branch, tag or commit of it, None for the default branch."""

    repository: str
    revision: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """What was fetched: the folder, or the file where a repository is one file of weights; and the commit's hash."""

    path: Path
    commit: str


def parse_hub_name(name: str, revision: str | None = None) -> HubModel | None:
    """What ``owner/name`` or ``owner/name@revision`` means; None for what cannot be a hub's name.

    Raises UsageError when ``revision`` says something else than the name.
    """
    found = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@(\S+))?", name)
    if found is None:
        return None
    if revision and found[2] and revision != found[2]:
        raise UsageError(f"{name} names the revision {found[2]!r}, --revision {revision!r}; give one of them")
    return HubModel(found[1], found[2] or revision)


def needed_files(names: Collection[str]) -> list[str]:
    """Of a repository's files those that an export reads, with one set of weights; none of it without weights."""
    weights = _weights(names)
    if not weights:
        return []
    licenses = [name for name in names if re.match(r"LICEN[CS]E[^/]*$", name)]
    return [*weights, *(name for name in FURTHER if name in names), *licenses]


def _weights(names: Collection[str]) -> list[str]:
    for name in WEIGHTS:
        if name in names:
            return [name]
        if f"{name}.index.json" in names:
            shard = re.compile(rf"{Path(name).stem}-\d+-of-\d+\{Path(name).suffix}")
            return [f"{name}.index.json", *(other for other in names if shard.fullmatch(other))]
    for suffix in (".safetensors", ".pt"):
        single = [name for name in names if name.endswith(suffix) and "/" not in name]
        if len(single) == 1:
            return single
    return []


def fetch(model: HubModel) -> Snapshot:
    """Download what is missing of a model. Without a connection, what an earlier call fetched will do.

    Raises CheckpointError when the model does not exist, is not for this user, has no weights that can be read, or
    cannot be transferred; MissingDependencyError without huggingface_hub.
    """
    try:
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingDependencyError(
            f'{model.repository} is on a hub, and fetching it needs {error.name}: pip install "clipedge[export]"'
        ) from None
    try:
        return _download(model)
    except ClipEdgeError:
        raise
    # What its HTTP library raises, which has been requests, httpx and httpx2: they share no class but this one's bases;
    # and ValueError for a name that no hub has, or an answer that is no JSON.
    except (*HfHubHTTPError.__bases__, OSError, ValueError) as error:
        refused = isinstance(error, (GatedRepoError, HFValidationError)) or _status(error) in (401, 403, 404)
        cached = None if refused or _is_disk_full(error) else _cached(model)
        if cached is None:
            raise CheckpointError(_explain(model, error)) from None
        if not _is_offline(error):
            warnings.warn(
                f"the hub cannot be reached ({_one_line(error)}): using {model.repository} as it was fetched before, "
                f"commit {cached.commit}",
                stacklevel=2,
            )
        return cached


def _download(model: HubModel) -> Snapshot:
    import huggingface_hub

    api = huggingface_hub.HfApi(library_name="clipedge")
    info = api.model_info(model.repository, revision=model.revision)
    names = [file.rfilename for file in info.siblings or ()]
    needed = needed_files(names)
    if not needed:
        raise CheckpointError(
            f"{model.repository} has no weights that can be read; expected {', '.join(WEIGHTS)} or one file .pt, found "
            f"{', '.join(sorted(names)[:10]) or 'no files'}"
        )
    folder = huggingface_hub.snapshot_download(
        model.repository,
        revision=model.revision,
        allow_patterns=needed,
        library_name="clipedge",
        tqdm_class=_terminal_bar(),
    )
    return _snapshot(Path(folder), needed)


def _terminal_bar() -> Any:
    """The library's progress bar, on terminals only: it shows the one that counts files elsewhere too."""
    from huggingface_hub.utils import tqdm

    class TerminalBar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": options.get("disable") or None})

    return TerminalBar


def _cached(model: HubModel) -> Snapshot | None:
    """What an earlier call fetched, if it has weights."""
    import huggingface_hub

    for name in ("README.md", *CONFIGURATIONS):
        found = huggingface_hub.try_to_load_from_cache(model.repository, name, revision=model.revision)
        if isinstance(found, str):
            folder = Path(found).parent
            needed = needed_files([path.name for path in folder.iterdir()])
            return _snapshot(folder, needed) if needed else None
    return None


def _snapshot(folder: Path, needed: Collection[str]) -> Snapshot:
    """The cache calls the folder of a commit by its hash."""
    if any(name in needed for name in CONFIGURATIONS):
        return Snapshot(folder, folder.name)
    return Snapshot(folder / _weights(needed)[0], folder.name)


def _explain(model: HubModel, error: Exception) -> str:
    """What went wrong and what to do, in a line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, hub = model.repository, constants.ENDPOINT
    login = "log in (hf auth login) or set HF_TOKEN"
    if isinstance(error, HFValidationError):
        return f"there is no folder {name}, and no hub has a model of that name ({_one_line(error)})"
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: accept its licence on {hub}/{name}, then {login}"
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {model.revision!r}; expected a branch, a tag or a commit's whole hash"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no folder {name}, and no model {name} on {hub} that you may see; check the name, and {login}"
    if _status(error) in (401, 403):
        return f"{hub} refuses access to {name} ({_one_line(error)}); {login} with a token that may read it"
    if _is_offline(error):
        return f"{name} is not in the cache ({constants.HF_HUB_CACHE}), or only a part of it, and HF_HUB_OFFLINE is set"
    if _is_disk_full(error):
        return f"the disk is full ({constants.HF_HUB_CACHE}): make room, or set HF_HOME to another one, and call again"
    return (
        f"{name} cannot be fetched from {hub} ({_one_line(error)}); check the connection and call again: files that "
        "arrived whole are kept"
    )


def _status(error: Exception) -> int | None:
    """The server's answer; the library puts some of them behind an error of its own."""
    for found in (error, error.__cause__):
        status = getattr(getattr(found, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _is_offline(error: Exception) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
