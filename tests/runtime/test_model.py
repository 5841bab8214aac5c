"""load() and what a Clip does, on the demonstration bundles."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

import clipedge
from clipedge.bundle import MANIFEST_NAME
from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures
from clipedge.decisions.rule import DecisionRule
from clipedge.model import variant_name
from clipedge.text import TruncatedTextWarning

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def clip(demo_bundle_fp32: Path) -> clipedge.Clip:
    return clipedge.load(demo_bundle_fp32)


@pytest.fixture(scope="module")
def clip_int8(demo_bundle: Path) -> clipedge.Clip:
    return clipedge.load(demo_bundle)


@pytest.fixture(scope="module")
def scenes() -> tuple[Pixels, npt.NDArray[np.int64]]:
    return labelled_pictures("test", 64, size=96)


def without_text_tower(bundle: Path, target: Path) -> Path:
    """The bundle as an export without the text tower makes it."""
    shutil.copytree(bundle, target)
    document: dict[str, Any] = json.loads((target / MANIFEST_NAME).read_text(encoding="utf-8"))
    for variant in document["variants"]:
        if variant["tower"] == "text":
            (target / variant["files"][0]["path"]).unlink()
    (target / "tokenizer.json").unlink()
    document["variants"] = [variant for variant in document["variants"] if variant["tower"] == "image"]
    document["files"] = [entry for entry in document["files"] if entry["path"] != "tokenizer.json"]
    document["context_length"] = None
    (target / MANIFEST_NAME).write_text(json.dumps(document), encoding="utf-8")
    return target


# ---- embeddings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_picture_has_the_same_embedding_in_every_batch(
    clip: clipedge.Clip, scenes: tuple[Pixels, npt.NDArray[np.int64]], batch: int
) -> None:
    pictures = scenes[0]
    alone = np.concatenate([clip.encode_image(picture) for picture in pictures])
    together = np.concatenate([clip.encode_image(pictures[i : i + batch]) for i in range(0, 64, batch)])
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)
    # encode_image cuts long lists into pieces: the engine itself is held to it as well.
    pixels = labelled_pictures("test", batch, size=64)[0]
    engine = clip.image_engine
    np.testing.assert_allclose(engine(pixels), np.concatenate([engine(p[None]) for p in pixels]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_text_has_the_same_embedding_in_every_batch(clip: clipedge.Clip, batch: int) -> None:
    texts = [f"a photo of a {name}." for name in CLASS_NAMES[:64]]
    alone = np.concatenate([clip.encode_text(text) for text in texts])
    together = np.concatenate([clip.encode_text(texts[i : i + batch]) for i in range(0, 64, batch)])
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


def test_int8_does_not_depend_on_its_batch_mates(
    clip_int8: clipedge.Clip, scenes: tuple[Pixels, npt.NDArray[np.int64]]
) -> None:
    pictures = scenes[0]
    alone = np.concatenate([clip_int8.encode_image(picture) for picture in pictures])
    together = clip_int8.encode_image(pictures)
    # A float sum in another order may fall on the other side of a rounding edge, and no more.
    assert (alone * together).sum(axis=1).min() > 0.9995


def test_every_way_to_give_a_picture_gives_the_same_embedding(clip: clipedge.Clip, tmp_path: Path) -> None:
    (picture,) = labelled_pictures("test", 1, size=80)[0]
    image = PIL.Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(buffer.getvalue())
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    ways = [path, str(path), buffer.getvalue(), image, picture, clipedge.Frame.from_bgr(bgr)]
    expected = clip.encode_image(picture)
    for way in ways:
        np.testing.assert_array_equal(clip.encode_image(way), expected)
    np.testing.assert_array_equal(clip.encode_image(ways), np.repeat(expected, len(ways), axis=0))


def test_embeddings_are_float32_unit_vectors(clip: clipedge.Clip, scenes: tuple[Pixels, Any]) -> None:
    for found, count in ((clip.encode_image(scenes[0][:3]), 3), (clip.encode_text(["a", "b"]), 2)):
        assert found.shape == (count, clip.manifest.embedding_dim)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_nothing_in_gives_nothing_out(clip: clipedge.Clip) -> None:
    for found in (clip.encode_image([]), clip.encode_text([]), clip.encode_image(np.empty((0, 9, 9, 3), np.uint8))):
        assert found.shape == (0, clip.manifest.embedding_dim)
        assert found.dtype == np.float32
    assert clip.classifier(["cat", "dog"]).predict([]).shape == (0,)


def test_int8_and_float_see_the_same(
    clip: clipedge.Clip, clip_int8: clipedge.Clip, scenes: tuple[Pixels, npt.NDArray[np.int64]]
) -> None:
    pictures = scenes[0]
    assert clip.manifest.space_id == clip_int8.manifest.space_id
    assert np.median((clip.encode_image(pictures) * clip_int8.encode_image(pictures)).sum(axis=1)) > 0.98


def test_fast_preprocessing_hardly_moves_an_embedding(demo_bundle_fp32: Path, clip: clipedge.Clip) -> None:
    large = labelled_pictures("test", 8, size=700)[0]
    jpegs = []
    for picture in large:
        buffer = io.BytesIO()
        PIL.Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        jpegs.append(buffer.getvalue())
    fast = clipedge.load(demo_bundle_fp32, preprocess="fast")
    exact, moved = clip.encode_image(jpegs), fast.encode_image(jpegs)
    assert not np.array_equal(exact, moved), "the mode has to reach the decoder"
    centred = [embeds - exact.mean(axis=0) for embeds in (exact, moved)]
    lengths = [np.linalg.norm(embeds, axis=1) for embeds in centred]
    assert ((centred[0] * centred[1]).sum(axis=1) / (lengths[0] * lengths[1])).min() > 0.995


def test_an_unknown_preprocessing_is_refused(demo_bundle: Path) -> None:
    with pytest.raises(clipedge.UsageError, match=r"unknown preprocessing .quick.; there are .exact. .* .fast."):
        clipedge.load(demo_bundle, preprocess="quick")  # type: ignore[arg-type]


# ---- classification ------------------------------------------------------------------------------------------


def test_most_scenes_are_recognised_among_120_labels(
    clip_int8: clipedge.Clip, scenes: tuple[Pixels, npt.NDArray[np.int64]]
) -> None:
    pictures, truth = scenes
    answers = clip_int8.classifier(CLASS_NAMES, TEMPLATES).predict(pictures)
    right = (answers == np.array(CLASS_NAMES)[truth]).mean()
    assert right > 0.6, "chance is 0.008; red and blue swapped, or a wrong size, fall far below"


def test_a_classifier_from_labels_equals_one_from_their_saved_bank(clip: clipedge.Clip, tmp_path: Path) -> None:
    pictures = labelled_pictures("test", 4, size=64)[0]
    clip.prompt_bank(["red circle", "blue star"]).save(tmp_path / "bank.safetensors")
    saved = clip.classifier(clipedge.PromptBank.load(tmp_path / "bank.safetensors"))
    direct = clip.classifier(["red circle", "blue star"])
    np.testing.assert_array_equal(saved.predict_proba(pictures), direct.predict_proba(pictures))


def test_a_bank_of_another_precision_of_the_same_model_is_accepted(
    clip: clipedge.Clip, clip_int8: clipedge.Clip
) -> None:
    (picture,) = labelled_pictures("test", 1, size=64)[0]
    bank = clip_int8.prompt_bank(["red circle", "blue star"])
    assert clip.classifier(bank).predict_proba(picture).shape == (1, 2)


def test_a_bank_of_another_model_is_refused(clip: clipedge.Clip) -> None:
    other = dataclasses.replace(clip.saved_bank("default"), space_id="f" * 64)
    with pytest.raises(clipedge.SpaceError, match=r"made for another model \(space ffffffffffff…\)"):
        clip.classifier(other)


def test_a_bank_that_claims_this_space_but_has_another_width_is_refused(clip: clipedge.Clip) -> None:
    bank = clip.saved_bank("default")
    narrow = bank.label_embeds[:, :7] / np.linalg.norm(bank.label_embeds[:, :7], axis=1, keepdims=True)
    with pytest.raises(clipedge.BundleError, match="7 numbers"):
        clip.classifier(dataclasses.replace(bank, label_embeds=narrow))


@pytest.mark.parametrize(
    ("labels", "message"), [("cat", r'write \["cat"\]'), ([], "no labels"), (["a", "a"], "more than once")]
)
def test_labels_that_cannot_be_used_are_refused(clip: clipedge.Clip, labels: Any, message: str) -> None:
    with pytest.raises(clipedge.UsageError, match=message):
        clip.classifier(labels)


def test_a_rule_fitted_with_another_variant_is_used_with_a_warning(
    clip: clipedge.Clip, clip_int8: clipedge.Clip, scenes: tuple[Pixels, npt.NDArray[np.int64]]
) -> None:
    bank = clip.prompt_bank(["red circle", "blue star"], negatives=["wall"])
    bank = dataclasses.replace(bank, rule=DecisionRule(1.0, (0.5, 0.5), False, clip.image_variant))
    with pytest.warns(UserWarning, match="fitted with the image tower 'fp32', and this is 'int8.x86'"):
        decided = clip_int8.classifier(bank).decide(scenes[0][:8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clip.classifier(bank).decide(scenes[0][:8]) == decided


def test_an_unknown_bank_is_refused_with_the_known_ones(clip: clipedge.Clip) -> None:
    with pytest.raises(clipedge.UsageError, match="no prompt bank 'pets'; there are: default"):
        clip.saved_bank("pets")


# ---- without the text tower ----------------------------------------------------------------------------------


def test_a_bank_classifies_without_text_tower_and_without_the_tokenizers_library(
    demo_bundle: Path, tmp_path: Path
) -> None:
    folder = without_text_tower(demo_bundle, tmp_path / "image-only")
    pictures, truth = labelled_pictures("test", 8, size=64)
    np.save(tmp_path / "pictures.npy", pictures)
    script = (
        "import sys; sys.modules['tokenizers'] = None\n"  # what Python itself makes of a missing package
        "import clipedge, json, numpy\n"
        f"clip = clipedge.load({str(folder)!r})\n"
        "zero_shot = clip.classifier(clip.saved_bank('default'))\n"
        f"print(json.dumps(zero_shot.predict(numpy.load({str(tmp_path / 'pictures.npy')!r})).tolist()))"
    )
    answers = json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout)
    whole = clipedge.load(demo_bundle)
    assert answers == whole.classifier(whole.saved_bank("default")).predict(pictures).tolist()
    assert sum(answer == CLASS_NAMES[label] for answer, label in zip(answers, truth, strict=True)) >= 4


def test_banks_are_swapped_at_run_time_without_text_tower(demo_bundle: Path, tmp_path: Path) -> None:
    pictures, _ = labelled_pictures("test", 12, size=64)
    whole = clipedge.load(demo_bundle)
    folder = without_text_tower(demo_bundle, tmp_path / "image-only")
    few = whole.prompt_bank(["stop", "blue star"], synonyms={"stop": ["red circle"]}, negatives=["green heart"])
    few.save(folder / "prompts" / "few.safetensors")
    clip = clipedge.load(folder)
    for name, bank in (
        ("default", whole.saved_bank("default")),
        ("few", few),
        ("default", whole.saved_bank("default")),
    ):
        expected = whole.classifier(bank).predict_proba(pictures)
        np.testing.assert_array_equal(clip.classifier(clip.saved_bank(name)).predict_proba(pictures), expected)
    assert set(clip.classifier(clip.saved_bank("few")).predict(pictures)) == {"stop", "blue star"}


def test_texts_without_text_tower_are_refused(demo_bundle: Path, tmp_path: Path) -> None:
    clip = clipedge.load(without_text_tower(demo_bundle, tmp_path / "image-only"))
    for call in (lambda: clip.encode_text("a cat"), lambda: clip.classifier(["cat"])):
        with pytest.raises(clipedge.UsageError, match="has no text tower; use a prompt bank"):
            call()


def test_a_damaged_text_tower_does_not_keep_the_image_tower_from_running(demo_bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(demo_bundle, tmp_path / "demo")
    next(folder.glob("text.*.onnx")).write_bytes(b"")
    clip = clipedge.load(folder)
    assert len(clip.encode_image(np.zeros((8, 8, 3), np.uint8))) == 1
    with pytest.raises(clipedge.BundleError, match="is not the file that was exported"):
        clip.encode_text("a cat")


def test_an_over_long_text_is_cut_with_a_warning_that_quotes_what_was_lost(clip: clipedge.Clip) -> None:
    with pytest.warns(TruncatedTextWarning, match="the end"):
        clip.encode_text("red " * (clip.tokenizer.context_length - 2) + "the end")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.encode_text("red circle")


# ---- choosing ------------------------------------------------------------------------------------------------


def test_an_unknown_backend_or_variant_is_refused_with_the_known_ones(demo_bundle: Path) -> None:
    with pytest.raises(clipedge.UsageError, match="unknown backend 'tpu'; there are: onnxruntime"):
        clipedge.load(demo_bundle, backend="tpu")
    with pytest.raises(clipedge.UsageError, match=r"no image tower fp16; there are: int8\.x86; name one of them"):
        clipedge.load(demo_bundle, variant="fp16")


def test_a_bundle_for_another_processor_loads_only_when_it_is_asked_for(
    demo_bundle: Path, demo_bundle_fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(clipedge.UsageError, match=r"for this processor \(riscv64\); there are: int8\.x86; export with"):
        clipedge.load(demo_bundle)
    assert clipedge.load(demo_bundle, variant="int8.x86").image_engine.device == "cpu"
    assert clipedge.load(demo_bundle_fp32).image_engine.device == "cpu", "float32 is for any"


def test_names_of_variants_are_those_in_the_file_names(clip: clipedge.Clip, clip_int8: clipedge.Clip) -> None:
    for loaded in (clip, clip_int8):
        for variant in loaded.manifest.variants:
            assert variant.files[0].path == f"{variant.tower}.{variant_name(variant)}.onnx"
