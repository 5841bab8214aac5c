"""PromptBank: label embeddings computed once, in one file, so that a device classifies without a text tower."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipedge.decisions.rule import DecisionRule
from clipedge.errors import BundleError, UsageError
from clipedge.manifest import Manifest
from clipedge.prompts.taught import Taught, read_taught, taught_tensors
from clipedge.text import DEFAULT_TEMPLATES, fill_template
from clipedge.tuning.tuned import Tuned
from clipedge.whole import write_whole

__all__ = ["PromptBank", "build_bank", "template_embeds"]

FORMAT = "clipedge-prompt-bank"
FORMAT_VERSION = 1
TENSOR, NEGATIVE_TENSOR = "label_embeds", "negative_embeds"


@dataclass(frozen=True, eq=False)  # numpy arrays have no single truth for ==
class PromptBank:
    """The text side of a classifier.

    ``label_embeds`` is (labels, D) float32, L2-normalised; row i is the ensemble of all templates for
    ``labels[i]``; a template that counts twice is in ``templates`` twice. The logit of an image embedding v is
    ``logit_scale * (v . row) + logit_bias``; ``activation`` makes probabilities of the logits. ``space_id`` names the
    model whose image embeddings may be compared.
    ``synonyms`` are the texts that stand for a label in place of its name. ``negatives`` with ``negative_embeds``
    (negatives, D) float32 are what "none of these" looks like, or () and None. ``rule`` is how probabilities become
    answers, where that was fitted.
    ``taught`` says which rows were made of example pictures (``clipedge.prompts.teach``), and how to undo that;
    ``tuned`` whether templates were chosen or label rows moved on pictures (``clipedge.tuning.tuning``).
    """

    label_embeds: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    logit_scale: float
    logit_bias: float
    activation: Literal["softmax", "sigmoid"]
    space_id: str
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    negatives: tuple[str, ...] = ()
    negative_embeds: npt.NDArray[np.float32] | None = None
    rule: DecisionRule | None = None
    taught: Taught | None = None
    tuned: Tuned | None = None

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
        # Only what the bank has: a clipedge that knows nothing of these parts still reads the file, without them.
        if self.synonyms:
            header["synonyms"] = dict(self.synonyms)
        if self.negative_embeds is not None:
            header["negatives"] = self.negatives
            tensors[NEGATIVE_TENSOR] = np.ascontiguousarray(self.negative_embeds)
        if self.rule is not None:
            header["decision"] = asdict(self.rule)
        if self.tuned is not None:
            header["tuned"] = asdict(self.tuned)
        if self.taught:  # a clipedge that knows nothing of this part reads the taught rows as any others
            header["taught"], taught = taught_tensors(self.taught)
            tensors.update(taught)
        write_whole(path, save(tensors, {"clipedge": json.dumps(header)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PromptBank:
        """Read a bank. Raises UsageError if there is none at ``path``, BundleError if it is damaged."""
        path = Path(path)
        if not path.is_file():
            raise UsageError(f"there is no prompt bank at {path}; `clipedge export --labels` writes one")
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {}).get("clipedge", "null"))
                embeds = file.get_tensor(TENSOR)
                names = set(file.keys())
                negative_embeds = file.get_tensor(NEGATIVE_TENSOR) if NEGATIVE_TENSOR in names else None
                bank = cls._checked(embeds, negative_embeds, header)
                entry = header.get("taught")
                if entry is None:
                    return bank
                width = bank.label_embeds.shape[1]
                return replace(bank, taught=read_taught(file, entry, bank.labels, width))
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"its header has no {error}" if isinstance(error, KeyError) else error
            raise BundleError(f"{path} is no readable prompt bank ({reason}): make it again or copy it again") from None

    @classmethod
    def _checked(cls, embeds: npt.NDArray[Any], negative_embeds: npt.NDArray[Any] | None, header: Any) -> PromptBank:
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("it is no prompt bank of clipedge")
        if header["version"] != FORMAT_VERSION:
            raise ValueError(f"it has version {header['version']!r}, this clipedge reads {FORMAT_VERSION}")
        labels, negatives = _texts(header, "labels"), _texts({"negatives": [], **header}, "negatives")
        check_labels([*labels, *negatives])
        _check_embeds(embeds, labels, "labels")
        if negative_embeds is not None or negatives:
            _check_embeds(negative_embeds, negatives, "negatives")
        if negative_embeds is not None and negative_embeds.shape[1] != embeds.shape[1]:
            raise ValueError(f"embeddings of {embeds.shape[1]} numbers, those of negatives {negative_embeds.shape[1]}")
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
            synonyms=_synonyms(header, (*labels, *negatives)),
            negatives=negatives,
            negative_embeds=negative_embeds,
            rule=DecisionRule.from_document(header["decision"], len(labels)) if "decision" in header else None,
            tuned=Tuned.from_document(header["tuned"]) if "tuned" in header else None,
        )


def _check_embeds(embeds: npt.NDArray[Any] | None, labels: Sequence[str], name: str) -> None:
    if embeds is None:
        raise ValueError(f"{len(labels)} {name}, but no embeddings of them")
    if embeds.dtype != np.float32 or embeds.ndim != 2 or len(embeds) != len(labels) or not labels:
        raise ValueError(f"{len(labels)} {name}, but embeddings {embeds.dtype} {list(embeds.shape)}")
    if not np.allclose(np.linalg.norm(embeds, axis=1), 1, atol=1e-3):  # catches NaN too
        raise ValueError(f"its embeddings of {name} are not unit vectors")


def _synonyms(header: dict[str, Any], known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    value = header.get("synonyms", {})
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise ValueError(f"synonyms: expected lists of texts by label, found {value!r:.40}")
    return {label: _texts(value, label) for label in value}


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
    *,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    negatives: Sequence[str] = (),
) -> PromptBank:
    """Embed every label in every template, average per label, normalise again (Radford et al. 2021, section 3.1.4).

    ``encode_text`` maps N texts to (N, D) L2-normalised embeddings. A label (or negative) with ``synonyms`` is
    embedded as each of these texts in every template, and not by its own name unless that is among them.
    Raises UsageError for no or repeated labels, for a template without its gap, and for synonyms of no label.
    """
    if any(isinstance(texts, str) for texts in (labels, templates, negatives)):
        raise UsageError(
            f"labels, templates and negatives are each a list of texts, found {labels!r:.40}, {templates!r:.40} and "
            f"{negatives!r:.40}"
        )
    names, templates = [*labels, *negatives], list(templates)
    check_labels(list(labels))
    check_labels(names)
    if not templates:
        raise UsageError('no templates: give at least one, such as "a photo of a {}."')
    synonyms = _checked_synonyms(synonyms or {}, names)
    groups = [synonyms.get(name, (name,)) for name in names]
    means = _template_embeds(encode_text, groups, templates).mean(axis=1)
    embeds = np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))
    return PromptBank(
        label_embeds=embeds[: len(labels)],
        labels=tuple(labels),
        templates=tuple(templates),
        logit_scale=manifest.logit_scale,
        logit_bias=manifest.logit_bias,
        activation=manifest.activation,
        space_id=manifest.space_id,
        synonyms=synonyms,
        negatives=tuple(negatives),
        negative_embeds=embeds[len(labels) :] if negatives else None,
    )


def template_embeds(
    encode_text: Callable[[Sequence[str]], npt.NDArray[np.float32]], bank: PromptBank
) -> npt.NDArray[np.float32]:
    """(labels + negatives, templates, D) float32: the texts of a bank made of them, in each of its templates.

    A row is the mean of a label's synonyms, and of length 1 only without any.
    """
    groups = [bank.synonyms.get(name, (name,)) for name in (*bank.labels, *bank.negatives)]
    return _template_embeds(encode_text, groups, bank.templates)


def _template_embeds(
    encode_text: Callable[[Sequence[str]], npt.NDArray[np.float32]],
    groups: Sequence[Sequence[str]],
    templates: Sequence[str],
) -> npt.NDArray[np.float32]:
    """(groups, templates, D): the mean of a group's texts in each template."""
    prompts = tuple(fill_template(template, text) for texts in groups for text in texts for template in templates)
    embeds = encode_text(prompts)
    ends = np.cumsum([len(texts) for texts in groups])
    parts = np.split(embeds.reshape(-1, len(templates), embeds.shape[1]), ends[:-1])
    return np.stack([part.mean(axis=0) for part in parts])


def _checked_synonyms(synonyms: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    for label, texts in synonyms.items():
        if label not in names:
            raise UsageError(f"synonyms are given for {label!r}, which is no label; labels are {', '.join(names[:5])}")
        if isinstance(texts, str) or not texts:
            raise UsageError(f"the synonyms of {label!r} have to be a list of one text or more, found {texts!r:.40}")
        check_labels(list(texts))
    return {label: tuple(texts) for label, texts in synonyms.items()}


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
