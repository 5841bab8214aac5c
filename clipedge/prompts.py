"""PromptBank: label embeddings computed once, in one file, so that a device classifies without a text tower."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipedge.errors import BundleError, UsageError
from clipedge.manifest import Manifest
from clipedge.text import DEFAULT_TEMPLATES, fill_template

__all__ = ["PromptBank", "build_bank"]

FORMAT = "clipedge-prompt-bank"
FORMAT_VERSION = 1
TENSOR = "label_embeds"


@dataclass(frozen=True, eq=False)  # numpy arrays have no single truth for ==
class PromptBank:
    """The text side of a classifier.

    ``label_embeds`` is (labels, D) float32, L2-normalised; row i is the ensemble of all templates for
    ``labels[i]``. The logit of an image embedding v is ``logit_scale * (v . row) + logit_bias``; ``activation``
    makes probabilities of the logits. ``space_id`` names the model whose image embeddings may be compared.
    """

    label_embeds: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    space_id: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank as one safetensors file; an earlier file is replaced in one step."""
        path = Path(path)
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "labels": self.labels,
            "templates": self.templates,
            "logit_scale": self.logit_scale,
            "logit_bias": self.logit_bias,
            "activation": self.activation,
            "space_id": self.space_id,
        }
        data = save({TENSOR: np.ascontiguousarray(self.label_embeds)}, {"clipedge": json.dumps(header)})
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.name}.{os.getpid()}.staging")
        try:
            staging.write_bytes(data)
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PromptBank:
        """Read a bank. Raises UsageError if there is none at ``path``, BundleError if it is damaged."""
        path = Path(path)
        if not path.is_file():
            raise UsageError(f"there is no prompt bank at {path}; `clipedge export --labels` writes one")
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {}).get("clipedge", "{}"))
                embeds = file.get_tensor(TENSOR)
            if header["format"] != FORMAT or header["version"] != FORMAT_VERSION:
                raise BundleError(
                    f"{path} is a prompt bank of version {header['version']!r}, this clipedge reads {FORMAT_VERSION}: "
                    "make it again with this clipedge"
                )
            return cls._checked(embeds, header)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path} is no readable prompt bank ({error}): make it again or copy it again") from None

    @classmethod
    def _checked(cls, embeds: npt.NDArray[Any], header: dict[str, Any]) -> PromptBank:
        labels = tuple(map(str, header["labels"]))
        if embeds.dtype != np.float32 or embeds.ndim != 2 or len(embeds) != len(labels) or not labels:
            raise ValueError(f"{len(labels)} labels, but embeddings {embeds.dtype} {list(embeds.shape)}")
        if not np.allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-3):  # catches NaN too
            raise ValueError("its embeddings are not unit vectors")
        if header["activation"] not in ("softmax", "sigmoid"):
            raise ValueError(f"unknown activation {header['activation']!r}")
        return cls(
            label_embeds=embeds,
            labels=labels,
            templates=tuple(map(str, header["templates"])),
            logit_scale=float(header["logit_scale"]),
            logit_bias=float(header["logit_bias"]),
            activation=header["activation"],
            space_id=str(header["space_id"]),
        )


def build_bank(
    encode_text: Callable[[Sequence[str]], npt.NDArray[np.float32]],
    manifest: Manifest,
    labels: Sequence[str],
    templates: Sequence[str] = DEFAULT_TEMPLATES,
) -> PromptBank:
    """Embed every label in every template, average per label, normalise again (Radford et al. 2021, section 3.1.4).

    ``encode_text`` maps N texts to (N, D) L2-normalised embeddings. Raises UsageError for no or repeated labels
    and for a template without its gap.
    """
    labels, templates = list(labels), list(templates)
    check_labels(labels)
    if not templates:
        raise UsageError('no templates: give at least one, such as "a photo of a {}."')
    prompts = [fill_template(template, label) for label in labels for template in templates]
    embeds = encode_text(prompts).reshape(len(labels), len(templates), -1).mean(axis=1)
    embeds /= np.linalg.norm(embeds, axis=1, keepdims=True)
    return PromptBank(
        label_embeds=embeds,
        labels=tuple(labels),
        templates=tuple(templates),
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        activation=manifest.activation,
        space_id=manifest.space_id,
    )


def check_labels(labels: Sequence[str]) -> None:
    """Raise UsageError unless ``labels`` are distinct, non-empty texts."""
    if not labels:
        raise UsageError("no labels: give at least one")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise UsageError(f"a label has to be a text that is not empty, found {label!r}")
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise UsageError(f"labels have to differ, found more than once: {', '.join(repeated[:5])}")
