"""What a bundle says about itself: the dataclasses behind ``clipedge.json``, read strictly.

A manifest that was damaged or edited must not be half understood, so every field is required unless it has a
default, unknown fields are refused, and every message names the place (``variants[0].files[1].sha256``).
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from clipedge.errors import BundleError

__all__ = [
    "SCHEMA_VERSION",
    "FileEntry",
    "Manifest",
    "Preprocessing",
    "Provenance",
    "TensorSpec",
    "Variant",
    "VariantProof",
]

SCHEMA_VERSION = 1

Precision = Literal["fp32", "fp16", "int8", "fp8"]
Target = Literal["x86", "arm", "tensorrt", "any"]
TowerName = Literal["image", "text", "dense"]
# Pixels a side, numbers in an embedding, tokens: no model goes beyond, and a hostile manifest would fill the memory.
Size = Annotated[int, range(1, 8193)]


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to the tensor that the image tower takes, as the model was trained.

    ``resize="shortest-edge"`` scales the shorter side to ``shortest_edge`` and cuts ``height`` x ``width``
    from the centre; ``"squash"`` scales both sides to ``height`` x ``width`` whatever the aspect ratio.
    ``mean`` and ``std`` are per channel for pixels in [0, 1]; ``baked``: the graph applies them itself.
    ``crop_offset`` tells where the centre's first pixel is when an odd number is cut off: half of it rounded
    "down", as transformers has it, or "half-even", to the nearest even number, as torchvision has it.
    """

    height: Size
    width: Size
    resize: Literal["shortest-edge", "squash"]
    shortest_edge: Size
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    baked: bool = True
    crop_offset: Literal["down", "half-even"] = "down"


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: POSIX path relative to the bundle, and the SHA-256 of its bytes in hex."""

    path: str
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        leaves = not self.path or path.is_absolute() or ".." in path.parts or "\\" in self.path or ":" in self.path
        if leaves or not self.path.isprintable():  # no file is called by a zero byte or half a surrogate pair
            raise BundleError(
                f"the manifest names the file {self.path!r}, which leaves the bundle's folder or is no path; "
                "only paths inside it are read. The bundle was altered: export it again"
            )


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph; a dimension is a size or the name of a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class VariantProof:
    """How close this graph came to the source model at export, in the engine named.

    Cosines are between source and exported embeddings of the proof pictures (or texts); centred means after
    the mean source embedding was subtracted from both. ``golden_cosine`` is the centred cosine of the first
    golden input alone, which every load measures again; of the tower "dense", which has an embedding for each patch,
    its median over the patches.
    """

    engine: str
    samples: int
    median_cosine: float
    median_centred_cosine: float
    p1_centred_cosine: float
    golden_cosine: float


@dataclass(frozen=True)
class Variant:
    """One tower in one precision for one kind of device.

    The tower "dense" is the image tower with an embedding for each patch: its output is (batch, rows, columns, D), and
    the rows and columns of patches divide the tower's pixels evenly.
    """

    tower: TowerName
    precision: Precision
    target: Target
    files: tuple[FileEntry, ...]
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    proof: VariantProof | None = None


@dataclass(frozen=True)
class Provenance:
    """Where the bundle comes from."""

    source_model: str
    source_license: str | None
    source_sha256: str
    calibration_sha256: str | None
    created: str
    tools: dict[str, str]


@dataclass(frozen=True)
class Manifest:
    """The whole of ``clipedge.json``.

    ``space_id`` names the embedding space: bundles, prompt banks and indexes of one source model share it
    whatever their precision. ``files`` are the bundle's further files (tokenizer, golden inputs).
    """

    schema_version: int
    space_id: str
    variants: tuple[Variant, ...]
    embedding_dim: Size
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    preprocessing: Preprocessing
    context_length: Size | None
    files: tuple[FileEntry, ...]
    provenance: Provenance

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse and check. Raises BundleError for anything that is not a manifest of this version."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"clipedge.json is not JSON ({error}); copy or export the bundle again") from None
        if not isinstance(document, dict):
            raise BundleError("clipedge.json holds no JSON object; export the bundle again")
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"the bundle has schema version {version!r}, this clipedge reads version {SCHEMA_VERSION}; "
                "export it again with this clipedge, or install the clipedge that wrote it"
            )
        manifest: Manifest = _decode(cls, document, "")
        return manifest


def _decode(kind: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into the annotated type ``kind``; ``where`` is the path for messages."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if origin is Literal:
        if value not in arguments:
            raise _unexpected(where, " or ".join(map(repr, arguments)), value)
        return value
    if origin is Annotated:
        size, allowed = _decode(arguments[0], value, where), arguments[1]
        if size not in allowed:
            raise _unexpected(where, f"{allowed.start} to {allowed.stop - 1}", value)
        return size
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _unexpected(where, "an object", value)
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return _finite(value, where)
    # `type(...) is`, not isinstance: a JSON true must not pass as the number 1.
    if type(value) is not kind:
        raise _unexpected(where, kind.__name__, value)
    return value


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _unexpected(where, f"an object ({kind.__name__})", value)
    hints = typing.get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    for name in value.keys() - hints.keys():
        raise BundleError(f"clipedge.json: unknown field {prefix}{name}; the bundle was altered: export it again")
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    for name in sorted(required - value.keys()):
        raise BundleError(f"clipedge.json: missing field {prefix}{name}; the bundle was altered: export it again")
    return kind(**{name: _decode(hints[name], item, prefix + name) for name, item in value.items()})


def _decode_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    kinds = [kind for kind in arguments if kind is not type(None)]
    if len(kinds) == 1:
        return _decode(kinds[0], value, where)
    if type(value) not in kinds:
        raise _unexpected(where, " or ".join(kind.__name__ for kind in kinds), value)
    return value


def _decode_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _unexpected(where, "a list", value)
    if arguments[-1] is Ellipsis:
        if not value:
            raise _unexpected(where, "a list that is not empty", value)
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise _unexpected(where, f"a list of {len(arguments)}", value)
    pairs = enumerate(zip(arguments, value, strict=True))
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in pairs)


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        number = math.inf
    if not math.isfinite(number):
        raise _unexpected(where, "a finite number", value)
    return number


def _unexpected(where: str, expected: str, found: Any) -> BundleError:
    return BundleError(
        f"clipedge.json: {where or 'the document'}: expected {expected}, found {json.dumps(found)[:80]}; "
        "the bundle was altered: export it again"
    )
