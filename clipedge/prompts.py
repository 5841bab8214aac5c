"""PromptBank: label embeddings computed once, in one file, so that a device classifies without a text tower."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipedge.errors import BundleError, UsageError
from clipedge.manifest import Manifest
from clipedge.taught import Taught, read_taught, taught_tensors
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
    ``taught`` says which rows were made of example pictures (``clipedge.teach``), and how to undo that.
    """

    label_embeds: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    space_id: str
    taught: Taught | None = None

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
        tensors = {TENSOR: np.ascontiguousarray(self.label_embeds)}
        if self.taught:  # a clipedge that knows nothing of this part reads the taught rows as any others
            header["taught"], taught = taught_tensors(self.taught)
            tensors.update(taught)
        data = save(tensors, {"clipedge": json.dumps(header)})
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
                header = json.loads((file.metadata() or {}).get("clipedge", "null"))
                bank = cls._checked(file.get_tensor(TENSOR), header)
                entry = header.get("taught")
                if entry is None:
                    return bank
                width = bank.label_embeds.shape[1]
                return replace(bank, taught=read_taught(file, entry, bank.labels, width))
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"its header has no {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"{path} is no readable prompt bank ({reason}): make it again or copy it again") from None

    @classmethod
    def _checked(cls, embeds: npt.NDArray[Any], header: Any) -> PromptBank:
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("it is no prompt bank of clipedge")
        if header["version"] != FORMAT_VERSION:
            raise ValueError(f"it has version {header['version']!r}, this clipedge reads {FORMAT_VERSION}")
        labels = _texts(header, "labels")
        check_labels(labels)
        if embeds.dtype != np.float32 or embeds.ndim != 2 or len(embeds) != len(labels):
            raise ValueError(f"{len(labels)} labels, but embeddings {embeds.dtype} {list(embeds.shape)}")
        if not np.allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-3):  # catches NaN too
            raise ValueError("its embeddings are not unit vectors")
        if header["activation"] not in ("softmax", "sigmoid"):
            raise ValueError(f"unknown activation {header['activation']!r}")
        if not isinstance(header["space_id"], str):
            raise ValueError(f"space_id: expected a text, found {header['space_id']!r:.40}")
        return cls(
            label_embeds=embeds,
            labels=labels,
            templates=_texts(header, "templates"),
            logit_scale=_number(header, "logit_scale"),
            logit_bias=_number(header, "logit_bias"),
            activation=header["activation"],
            space_id=header["space_id"],
        )


def _texts(header: dict[str, Any], name: str) -> tuple[str, ...]:
    value = header[name]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name}: expected a list of texts, found {value!r:.40}")
    return tuple(value)


def _number(header: dict[str, Any], name: str) -> float:
    value = header[name]
    # The comparison is false for NaN, and exact for an integer too large for a float.
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{name}: expected a finite number, found {value!r:.40}")
    return float(value)


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
    if isinstance(labels, str) or isinstance(templates, str):
        raise UsageError(f"labels and templates are each a list of texts, found {labels!r:.40} and {templates!r:.40}")
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
