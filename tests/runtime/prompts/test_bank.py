"""Prompt banks: ensembling against float64, a faithful round trip, and files that are no bank or lie about it."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from clipedge.bundle import open_bundle
from clipedge.decisions.rule import DecisionRule
from clipedge.errors import BundleError, UsageError
from clipedge.manifest import Manifest
from clipedge.prompts.bank import PromptBank, build_bank
from clipedge.tuning.tuned import Tuned

LABELS = ("cat", "dog", "naïve 図")
TEMPLATES = ("a photo of a {}.", "{}", "{} {{x}}")


def unit_rows(count: int, dim: int = 16, seed: int = 0) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


BANK = PromptBank(unit_rows(3), LABELS, TEMPLATES, 34.25, -1.5, "sigmoid", "5pace")


WITH_NEGATIVES = dataclasses.replace(
    BANK,
    synonyms={"cat": ("cat", "kitten"), "floor": ("an empty floor",)},
    negatives=("floor", "wall"),
    negative_embeds=unit_rows(2, seed=1),
    rule=DecisionRule(1.5, (0.5, 0.0, 1.0), True, "int8.x86", 18.25),
    tuned=Tuned(("templates", "label embeddings"), 48, (0.5, 0.75)),
)
OLD_FIELDS = ("labels", "templates", "logit_scale", "logit_bias", "activation", "space_id")


def header(**changes: Any) -> dict[str, Any]:
    """The header as banks had it before there were synonyms and negatives."""
    return {"format": "clipedge-prompt-bank", "version": 1, **{n: getattr(BANK, n) for n in OLD_FIELDS}, **changes}


def write(
    path: Path, embeds: npt.NDArray[Any], head: Any, tensor: str = "label_embeds", **more: npt.NDArray[Any]
) -> Path:
    text = head if isinstance(head, str) else json.dumps(head)
    path.write_bytes(save({tensor: embeds, **more}, {"clipedge": text}))
    return path


# ---- making --------------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(demo_bundle: Path) -> Manifest:
    return open_bundle(demo_bundle).manifest


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """A text tower that gives each text its own direction."""
    return np.concatenate([unit_rows(1, seed=sum(text.encode()) + len(text)) for text in texts])


def test_templates_are_averaged_after_normalisation_and_normalised_again(manifest: Manifest) -> None:
    bank = build_bank(embed, manifest, LABELS, ["a {}.", "the {}!", "{}"])
    for label, row in zip(LABELS, bank.label_embeds, strict=True):
        vectors = embed([f"a {label}.", f"the {label}!", label]).astype(np.float64)
        mean = vectors.mean(axis=0)
        np.testing.assert_allclose(row, mean / np.sqrt((mean * mean).sum()), atol=2e-7)
    assert bank.label_embeds.dtype == np.float32


def test_a_bank_takes_the_numbers_of_its_model(manifest: Manifest) -> None:
    bank = build_bank(embed, manifest, LABELS)
    assert bank.labels == LABELS
    assert bank.templates == ("a photo of a {}.",)
    for name in ("logit_scale", "logit_bias", "activation", "space_id"):
        assert getattr(bank, name) == getattr(manifest, name)


def test_a_labels_texts_are_its_synonyms_in_every_template(manifest: Manifest) -> None:
    synonyms = {"cat": ["kitten", "cat", "tabby"], "floor": ["an empty floor"]}
    bank = build_bank(embed, manifest, LABELS, ["a {}.", "{}"], synonyms=synonyms, negatives=["wall", "floor"])
    assert bank.labels == LABELS
    assert bank.negatives == ("wall", "floor")
    assert bank.synonyms == {"cat": ("kitten", "cat", "tabby"), "floor": ("an empty floor",)}
    assert bank.negative_embeds is not None
    texts = {"cat": ["kitten", "cat", "tabby"], "floor": ["an empty floor"]}
    rows = zip((*LABELS, "wall", "floor"), (*bank.label_embeds, *bank.negative_embeds), strict=True)
    for label, row in rows:
        words = texts.get(label, [label])
        mean = embed([prompt for word in words for prompt in (f"a {word}.", word)]).astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.sqrt((mean * mean).sum()), atol=2e-7)


@pytest.mark.parametrize(
    ("synonyms", "negatives", "message"),
    [
        ({"cow": ["calf"]}, [], "synonyms are given for 'cow', which is no label"),
        ({"cat": []}, [], "list of one text or more"),
        ({"cat": "kitten"}, [], "list of one text or more"),
        ({"cat": ["kitten", ""]}, [], "not empty"),
        ({"cat": ["kitten", "kitten"]}, [], "more than once: kitten"),
        ({}, ["cat"], "more than once: cat"),
        ({}, "cat", "each a list"),
        ({}, [""], "not empty"),
    ],
)
def test_synonyms_and_negatives_that_cannot_be_used_are_refused(
    manifest: Manifest, synonyms: Any, negatives: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_bank(embed, manifest, LABELS, synonyms=synonyms, negatives=negatives)


def test_negatives_alone_are_no_bank(manifest: Manifest) -> None:
    with pytest.raises(UsageError, match="no labels"):
        build_bank(embed, manifest, [], negatives=["wall"])


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], ["{}"], "no labels"),
        (["cat", " "], ["{}"], "not empty, found ' '"),
        (["cat", 7], ["{}"], "not empty, found 7"),
        (["cat", "dog", "cat"], ["{}"], "found more than once: cat"),
        ("cat", ["{}"], "a list of texts"),
        (["cat"], [], "no templates"),
        (["cat"], "a {}", "a list of texts"),
        (["cat"], ["a photo"], "exactly once"),
        (["cat"], ["{} and {}"], "exactly once"),
        (["\ud800"], ["{}"], "surrogate"),
    ],
)
def test_labels_and_templates_that_cannot_be_used_are_refused(
    manifest: Manifest, labels: Any, templates: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build_bank(embed, manifest, labels, templates)


# ---- keeping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bank", [BANK, WITH_NEGATIVES], ids=["labels", "negatives"])
def test_a_bank_is_read_back_as_it_was_saved(tmp_path: Path, bank: PromptBank) -> None:
    path = tmp_path / "deep" / "pets.safetensors"
    bank.save(path)
    found = PromptBank.load(path)
    for field in dataclasses.fields(bank):
        np.testing.assert_equal(getattr(found, field.name), getattr(bank, field.name))
    assert list(path.parent.iterdir()) == [path]


def test_a_bank_written_before_there_were_negatives_is_read(tmp_path: Path) -> None:
    found = PromptBank.load(write(tmp_path / "bank.safetensors", unit_rows(3), header()))
    assert found.labels == LABELS
    assert (found.negatives, found.negative_embeds, dict(found.synonyms)) == ((), None, {})
    assert (found.rule, found.taught, found.tuned) == (None, None, None)


def test_a_bank_without_negatives_is_written_as_before(tmp_path: Path) -> None:
    """A clipedge of that time reads version 1, the tensor label_embeds, and these fields."""
    BANK.save(tmp_path / "bank.safetensors")
    with safe_open(tmp_path / "bank.safetensors", framework="numpy") as file:
        assert list(file.keys()) == ["label_embeds"]
        assert json.loads(file.metadata()["clipedge"]) == json.loads(json.dumps(header()))


def test_a_transposed_view_is_saved_by_its_rows(tmp_path: Path) -> None:
    view = np.asfortranarray(BANK.label_embeds)
    dataclasses.replace(BANK, label_embeds=view).save(tmp_path / "bank.safetensors")
    np.testing.assert_array_equal(PromptBank.load(tmp_path / "bank.safetensors").label_embeds, BANK.label_embeds)


def test_a_save_that_fails_leaves_the_earlier_bank(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    BANK.save(path)
    broken = dataclasses.replace(BANK, labels=(object(),))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        broken.save(path)
    assert PromptBank.load(path).labels == LABELS


def test_a_missing_bank_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no prompt bank at"):
        PromptBank.load(tmp_path / "none.safetensors")
    with pytest.raises(UsageError, match="there is no prompt bank at"):
        PromptBank.load(tmp_path)


def with_one(value: float) -> npt.NDArray[np.float32]:
    rows = unit_rows(3)
    rows[1, 2] = value
    return rows


@pytest.mark.parametrize(
    ("embeds", "head", "message"),
    [
        (with_one(float("nan")), header(), "not unit vectors"),
        (with_one(float("inf")), header(), "not unit vectors"),
        (3 * unit_rows(3), header(), "not unit vectors"),
        (np.zeros((3, 16), np.float32), header(), "not unit vectors"),
        (unit_rows(2), header(), "3 labels, but embeddings"),
        (unit_rows(3)[0], header(), "3 labels, but embeddings"),
        (unit_rows(3).astype(np.float64), header(), "float64"),
        (unit_rows(3).astype(np.float16), header(), "float16"),
        (np.empty((0, 16), np.float32), header(labels=[]), "labels"),
        (np.empty((3, 0), np.float32), header(), "not unit vectors"),
        (unit_rows(3), header(labels="abc"), "labels: expected a list of texts"),
        (unit_rows(3), header(labels=["a", "b", 3]), "labels: expected a list of texts"),
        (unit_rows(3), header(labels=["a", "b", "a"]), "found more than once: a"),
        (unit_rows(3), header(templates="{}"), "templates: expected a list of texts"),
        (unit_rows(3), header(activation="relu"), "unknown activation 'relu'"),
        (unit_rows(3), header(activation=["softmax"]), "unknown activation"),
        (unit_rows(3), header(logit_scale=float("nan")), "logit_scale: expected a finite number"),
        (unit_rows(3), header(logit_scale=10**400), "logit_scale: expected a finite number"),
        (unit_rows(3), header(logit_bias=float("-inf")), "logit_bias: expected a finite number"),
        (unit_rows(3), header(logit_bias="1.0"), "logit_bias: expected a finite number"),
        (unit_rows(3), header(space_id=7), "space_id: expected a text"),
        (unit_rows(3), header(version=2), "version 2, this clipedge reads 1"),
        (unit_rows(3), header(format="other"), "no prompt bank"),
        (unit_rows(3), {}, "no prompt bank"),
        (unit_rows(3), [1], "no prompt bank"),
        (unit_rows(3), "{", "no readable prompt bank"),
        (unit_rows(3), "[" * 100_000, "no readable prompt bank"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_a_bank_that_cannot_be_right_is_refused(
    tmp_path: Path, embeds: npt.NDArray[Any], head: Any, message: str
) -> None:
    path = write(tmp_path / "bank.safetensors", embeds, head)
    with pytest.raises(BundleError, match=message) as error:
        PromptBank.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("head", "more", "message"),
    [
        (header(negatives=["wall"]), {}, "1 negatives, but no embeddings"),
        (header(), {"negative_embeds": unit_rows(1)}, "0 negatives, but embeddings"),
        (header(negatives=["wall"]), {"negative_embeds": unit_rows(2)}, "1 negatives, but embeddings"),
        (header(negatives=["wall"]), {"negative_embeds": unit_rows(1, 8)}, "16 numbers, those of negatives 8"),
        (header(negatives=["wall"]), {"negative_embeds": 2 * unit_rows(1)}, "negatives are not unit vectors"),
        (header(negatives=["wall"]), {"negative_embeds": unit_rows(1) * np.float32("nan")}, "not unit vectors"),
        (header(negatives="wall"), {"negative_embeds": unit_rows(4)}, "negatives: expected a list of texts"),
        (header(negatives=["cat"]), {"negative_embeds": unit_rows(1)}, "found more than once: cat"),
        (header(synonyms=["cat"]), {}, "synonyms: expected"),
        (header(synonyms={"cow": ["calf"]}), {}, "synonyms: expected"),
        (header(synonyms={"cat": "kitten"}), {}, "cat: expected a list of texts"),
        (header(tuned=[]), {}, "tuned: expected an object"),
        (header(tuned={"kept": ["templates"]}), {}, "its header has no 'pictures'"),
        (header(decision=[]), {}, "decision: expected an object"),
        (header(decision={"temperature": 1}), {}, "its header has no 'thresholds'"),
        (header(decision={"temperature": 1, "thresholds": [1]}), {}, "thresholds: expected none or 3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_further_parts_that_cannot_be_right_are_refused(
    tmp_path: Path, head: Any, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        PromptBank.load(write(tmp_path / "bank.safetensors", unit_rows(3), head, **more))


@pytest.mark.parametrize("field", OLD_FIELDS)
def test_every_field_of_a_bank_is_required(tmp_path: Path, field: str) -> None:
    head = header()
    del head[field]
    with pytest.raises(BundleError, match=field):
        PromptBank.load(write(tmp_path / "bank.safetensors", unit_rows(3), head))


def bfloat16_bank() -> bytes:
    head = {"label_embeds": {"dtype": "BF16", "shape": [3, 16], "data_offsets": [0, 96]}}
    text = json.dumps({"__metadata__": {"clipedge": json.dumps(header())}, **head}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(96)


WHOLE = save({"label_embeds": unit_rows(3)}, {"clipedge": json.dumps(header())})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        WHOLE[:7],
        WHOLE[:100],
        WHOLE[:-1],
        WHOLE + b"!",
        struct.pack("<Q", 2**63) + WHOLE[8:],
        save({"label_embeds": unit_rows(3)}),
        save({"something": unit_rows(3)}, {"clipedge": json.dumps(header())}),
        bfloat16_bank(),
    ],
    ids=["empty", "zip", "7 bytes", "header cut", "data cut", "data added", "huge", "no header", "no tensor", "bf16"],
)
def test_a_file_that_is_no_bank_or_a_damaged_one_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bank.safetensors"
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"no (readable )?prompt bank"):
        PromptBank.load(path)
