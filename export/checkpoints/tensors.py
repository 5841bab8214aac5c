"""A checkpoint's tensors: what files hold, checked against what a configuration calls for, as float32."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open

from clipedge.bundle import sha256_of
from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.sections import read_json

__all__ = [
    "WEIGHTS_FILE",
    "Shape",
    "Stored",
    "StoredTensor",
    "find_weight_files",
    "hash_files",
    "open_pickle",
    "open_safetensors",
    "read_tensors",
]

Shape = tuple[int, ...]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# What safetensors calls the types that a float32 holds exactly.
FLOAT_TYPES = ("F16", "BF16", "F32")
TORCH_TYPES: Mapping[torch.dtype, str] = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file; ``dtype`` as safetensors names types, ``load`` reads it."""

    file: Path
    shape: Shape
    dtype: str
    load: Callable[[], torch.Tensor]


Stored: TypeAlias = Mapping[str, StoredTensor]


def find_weight_files(folder: Path, name: str = WEIGHTS_FILE) -> tuple[Path, ...]:
    """``name`` in the folder, or the shards that ``name`` + ``.index.json`` lists, sorted.

    Raises CheckpointError when there are none, a shard is missing, or the index points out of the folder.
    """
    if (folder / name).is_file():
        return (folder / name,)
    index = folder / f"{name}.index.json"
    if not index.is_file():
        raise CheckpointError(f"{folder} has no {name} (or {index.name}); expected a Hugging Face CLIP folder")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; fetch the checkpoint again")
    names = {str(name) for name in weight_map.values()}
    for shard in sorted(names):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise CheckpointError(f"{index} names the file {shard!r}, which is not in {folder}; fetch it again")
    return tuple(folder / shard for shard in sorted(names))


def hash_files(files: Sequence[Path]) -> str:
    """SHA-256 in hex: of the bytes of a single file (what model hubs show), or of the files' digests in order."""
    digests = [sha256_of(path) for path in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def open_safetensors(files: Sequence[Path]) -> Stored:
    """What lies in safetensors files, nothing read yet. Raises CheckpointError for a damaged file."""
    stored: dict[str, StoredTensor] = {}
    for path in files:
        try:
            file: Any = safe_open(path, framework="pt")
            for name in list(file.keys()):
                entry = file.get_slice(name)
                stored[name] = StoredTensor(path, tuple(entry.get_shape()), entry.get_dtype(), _reader(file, name))
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None
    return stored


def _reader(file: Any, name: str) -> Callable[[], torch.Tensor]:
    return lambda: torch.as_tensor(file.get_tensor(name))


def open_pickle(path: Path) -> Stored:
    """The tensors of a PyTorch file: a state dict (also one under "state_dict"), or a TorchScript archive's.

    Of a state dict nothing but tensors is unpickled (``weights_only``), so it cannot run code. An archive is opened by
    ``torch.jit.load``, since ``weights_only`` refuses it; none of its functions is called, but take it from a source
    you trust. Raises CheckpointError for a damaged file or one that holds anything else.
    """
    try:
        if _is_torchscript(path):
            tensors: object = torch.jit.load(path, map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds more than tensors, and opening the rest could run code; expected a state dict. Save one "
            "where the model is at home: torch.save(model.state_dict(), path), or better as safetensors"
        ) from None
    except Exception as error:  # damaged bytes make the two readers raise nearly anything
        raise _damaged(path, error) from None
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{path} holds no state dict (names and tensors); save one: model.state_dict()")
    return {
        str(name).removeprefix("module."): StoredTensor(
            path, tuple(tensor.shape), TORCH_TYPES.get(tensor.dtype, str(tensor.dtype)), _constant(tensor)
        )
        for name, tensor in tensors.items()
    }


def _constant(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor.detach()


def _is_torchscript(path: Path) -> bool:
    """A TorchScript archive has its code and constants beside the tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _damaged(path: Path, error: Exception) -> CheckpointError:
    what = " ".join(str(error).split())
    return CheckpointError(f"{path} is damaged ({what:.200}); fetch the checkpoint again")


def read_tensors(
    stored: Stored, shapes: Mapping[str, Shape], place: Path, ignored: Callable[[str], bool] = lambda name: False
) -> dict[str, torch.Tensor]:
    """Read the tensors that ``shapes`` calls for, by their names in the file, as float32.

    ``place`` is the file or folder that messages name; ``ignored`` tells names that may be there and are not wanted.
    Raises CheckpointError, naming the tensors, when some are missing, left over, of another shape, of a type that
    float32 does not hold exactly, or not finite.
    """
    unexpected = {name for name in stored if name not in shapes and not ignored(name)}
    _check_names(place, shapes.keys() - stored.keys(), unexpected)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in shapes.items():
        entry = stored[name]
        _check_tensor(name, entry, shape)
        try:
            tensors[name] = entry.load().to(torch.float32)
        except (SafetensorError, OSError) as error:
            raise _damaged(entry.file, error) from None
        if not bool(torch.isfinite(tensors[name]).all()):
            raise CheckpointError(f"{place}: the tensor {name} contains NaN or infinity; use sound weights")
    return tensors


def _check_tensor(name: str, entry: StoredTensor, expected: Shape) -> None:
    if entry.shape != expected:
        raise CheckpointError(
            f"{entry.file}: the tensor {name} has the shape {list(entry.shape)}, the configuration calls for "
            f"{list(expected)}; the two belong to different models"
        )
    if entry.dtype not in FLOAT_TYPES:
        raise CheckpointError(
            f"{entry.file}: the tensor {name} has the type {entry.dtype}, expected {', '.join(FLOAT_TYPES)}; "
            "export the unquantized checkpoint"
        )


def _check_names(place: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    for names, problem in ((sorted(missing), "lack"), (sorted(unexpected), "have beyond those of the configuration")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                f"{place}: the weights {problem} {', '.join(names[:3])}{more}; "
                "configuration and weights belong to different models, or a shard is missing"
            )
