"""The golden inputs: a few inputs with the source model's embeddings, by which any device can test an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from clipedge.backends import Engine
from clipedge.errors import BackendError, BundleError
from clipedge.manifest import Variant, VariantProof

__all__ = [
    "GOLDEN_NAME",
    "centred_cosines",
    "cosines",
    "golden_cosines",
    "golden_embeddings",
    "prove_engine",
    "self_test",
]

GOLDEN_NAME = "golden.safetensors"
TENSORS = {
    "image": ("pixels", "image_embeds"),
    "text": ("input_ids", "text_embeds"),
    "dense": ("pixels", "patch_embeds"),
}

# How far the first golden's centred cosine may fall below what it was at export. Another engine, version or
# instruction set rounds INT8 a little differently; a broken one misses by far more.
ALLOWED_DRIFT = 0.05

Floats = npt.NDArray[np.floating[Any]]


def cosines(first: Floats, second: Floats) -> Floats:
    """Row-wise cosine of two (N, D) arrays, (N,). A zero row, or one with NaN, gives NaN."""
    with np.errstate(invalid="ignore"):
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        return np.asarray((first * second).sum(axis=1) / norms)


def centred_cosines(source: Floats, other: Floats, mean: Floats) -> Floats:
    """Row-wise cosine after ``mean`` (D,) was subtracted from both, (N,).

    Embeddings of unrelated pictures have a large common part (raw cosine 0.6 and more), which hides errors.
    """
    return cosines(source - mean, other - mean)


def golden_cosines(engine: Engine, path: Path, tower: str, count: int | None = None) -> Floats:
    """Centred cosines between the source model's embeddings and the engine's, of the first ``count`` goldens.

    The tower "dense" has goldens for the first pictures alone, and a cosine for each of their patches.
    """
    input_name, embeds_name = TENSORS[tower]
    try:
        with safe_open(path, framework="numpy") as golden:
            expected = golden.get_tensor(embeds_name)
            stored = golden.get_slice(input_name)
            pictures = list(expected.shape[:1])
            rows, inputs = stored.get_shape()[:1], stored[: pictures[0] if count is None else count]
    except (SafetensorError, IndexError, TypeError, AttributeError) as error:  # the last ones: odd shapes and dtypes
        raise BundleError(f"{path} cannot be read ({error}): copy or export the bundle again") from None
    dense = tower == "dense"
    fits = rows >= pictures if dense else rows == pictures
    if expected.ndim != (4 if dense else 2) or not fits or pictures == [0]:
        raise BundleError(
            f"{path} should hold {'patch embeddings of its first inputs' if dense else 'as many inputs as embeddings'} "
            f"for the {tower} tower, found {rows} and {list(expected.shape)}: export the bundle again"
        )
    # One at a time: that is what a camera does, and it bounds memory.
    found = np.concatenate([engine(inputs[i : i + 1]) for i in range(len(inputs))])
    if found.shape != expected[:count].shape:
        raise BackendError(
            f"{engine.name} {engine.version}: expected embeddings {list(expected[:count].shape)} of the {tower} tower, "
            f"found {list(found.shape)}; export the bundle again"
        )
    width = expected.shape[-1]
    mean = expected.reshape(-1, width).mean(axis=0)
    return centred_cosines(expected[:count].reshape(-1, width), found.reshape(-1, width), mean)


def golden_embeddings(path: Path, tower: str) -> Floats:
    """The source model's embeddings of a tower's golden inputs, (N, D) float32. Raises BundleError."""
    try:
        with safe_open(path, framework="numpy") as golden:
            embeds: Floats = golden.get_tensor(TENSORS[tower][1])
    except (SafetensorError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} cannot be read ({error}): copy or export the bundle again") from None
    if embeds.ndim != 2 or not len(embeds) or embeds.dtype != np.float32 or not np.isfinite(embeds).all():
        raise BundleError(
            f"{path} should hold finite embeddings of the {tower} tower, found {embeds.dtype} {list(embeds.shape)}: "
            "export the bundle again"
        )
    return embeds


def self_test(engine: Engine, path: Path, variant: Variant) -> None:
    """Run the first golden input. Raises BackendError for NaN, a constant, or an embedding that drifted.

    Of the tower "dense" the median over the patches counts.
    """
    proof = _proof(variant)
    found = float(np.median(golden_cosines(engine, path, variant.tower, count=1)))
    _check_drift(engine, variant, "golden input", proof.golden_cosine, found)


def prove_engine(engine: Engine, path: Path, variant: Variant) -> Floats:
    """Run every golden input; their centred cosines with the source model.

    Raises BackendError as ``self_test`` does, and if the median of all fell as far below the export's proof.
    """
    proof = _proof(variant)
    self_test(engine, path, variant)
    found = golden_cosines(engine, path, variant.tower)
    _check_drift(
        engine, variant, f"{len(found)} goldens (median)", proof.median_centred_cosine, float(np.median(found))
    )
    return found


def _proof(variant: Variant) -> VariantProof:
    if variant.proof is None:
        raise BundleError(f"the {variant.tower} tower was exported without a proof: export the bundle again")
    return variant.proof


def _check_drift(engine: Engine, variant: Variant, what: str, expected: float, found: float) -> None:
    if not found >= expected - ALLOWED_DRIFT:  # `not >=`, so that NaN fails
        raise BackendError(
            f"{engine.name} {engine.version} gives wrong numbers with the {variant.tower} tower "
            f"({variant.precision}, target {variant.target}): on the bundle's {what} the centred cosine with "
            f"the source model was {expected:.4f} at export and is {found:.4f} here; "
            "use another backend or variant, or export for this device"
        )
