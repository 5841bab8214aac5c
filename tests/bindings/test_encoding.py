"""Images, texts and banks in libclipedge against the Python runtime, on the demonstration model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native import IMAGE, SPACE, USAGE, NativeError, NativeModel
from numpy.typing import NDArray

import clipedge
from clipedge.classify import probabilities
from clipedge.decisions.rule import DecisionRule
from clipedge.images.frames import Frame
from clipedge.text import TruncatedTextWarning

Pictures = list[NDArray[np.uint8]]
TEXTS = ["a photo of a red circle", "", "Ein grünes Dreieck, und it's BLUE!", "star " * 60]


def rgb(picture: NDArray[np.uint8]) -> Frame:
    return Frame.from_array(picture, "rgb8")


def test_embeddings_of_500_pictures_are_those_of_python(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, pictures: Pictures
) -> None:
    found = native_fp32.encode([rgb(picture) for picture in pictures])
    np.testing.assert_allclose(found, clip_fp32.encode_image(pictures), atol=1e-5, rtol=0)


def test_int8_labels_of_500_pictures_are_those_of_python(
    native_int8: NativeModel, clip_int8: clipedge.Clip, pictures: Pictures
) -> None:
    bank = native_int8.bank("default")
    found = bank.classify(native_int8.encode([rgb(picture) for picture in pictures]))
    expected = clip_int8.classifier(clip_int8.saved_bank("default"))
    assert bank.labels() == expected.labels
    assert [bank.labels()[best] for best in found.argmax(axis=1)] == expected.predict(pictures).tolist()


@pytest.mark.parametrize("format", ["nv12", "i420", "yuyv", "uyvy", "bgra8", "gray8"])
def test_a_camera_frame_is_what_python_makes_of_it(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, format: str
) -> None:
    shape = {"nv12": (96, 100), "i420": (96, 100), "gray8": (64, 100), "bgra8": (64, 100, 4)}.get(format, (64, 100, 2))
    memory = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    for matrix, span in (("bt601", "limited"), ("bt709", "full")):
        frame = Frame.from_array(memory, format, matrix, span)  # type: ignore[arg-type]
        np.testing.assert_allclose(native_fp32.encode([frame]), clip_fp32.encode_image(frame), atol=1e-5, rtol=0)


def test_texts_are_those_of_python(native_fp32: NativeModel, clip_fp32: clipedge.Clip) -> None:
    with pytest.warns(TruncatedTextWarning):
        expected = clip_fp32.encode_text(TEXTS)
    np.testing.assert_allclose(native_fp32.encode_texts(TEXTS), expected, atol=1e-5, rtol=0)


def test_several_threads_encode_at_once(native_fp32: NativeModel, pictures: Pictures) -> None:
    frames = [rgb(picture) for picture in pictures[:48]]
    alone = native_fp32.encode(frames)
    with ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(lambda start: native_fp32.encode(frames[start : start + 3]), range(0, 48, 3)))
    np.testing.assert_allclose(np.concatenate(parts), alone, atol=1e-6)


def test_an_image_that_cannot_be_is_refused(native_fp32: NativeModel, pictures: Pictures) -> None:
    whole = rgb(pictures[0])
    for broken in ({"format": "gray8", "strides": (3,)}, {"width": 0}, {"height": -1}):
        frame = rgb(pictures[0])
        for name, value in broken.items():
            object.__setattr__(frame, name, value)
        with pytest.raises(NativeError, match=r"images\[1\]: .*(expected|needs)") as error:
            native_fp32.encode([whole, frame])
        assert error.value.status == IMAGE


def probable(clip: clipedge.Clip, **changes: object) -> clipedge.PromptBank:
    bank = clip.prompt_bank(["red circle", "blue star", "green ring"], negatives=["a wall", "a floor"])
    return replace(bank, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "several"),
    [
        ({}, False),
        ({"activation": "sigmoid", "logit_bias": -3.0}, False),
        ({}, True),
        ({"activation": "sigmoid", "logit_bias": -3.0}, True),
        ({"rule": DecisionRule(1.7, (), False, "fp32", floor=4.0)}, False),
        ({"rule": DecisionRule(0.6, (0.2, 0.5, 0.9), False, "fp32")}, False),
        ({"rule": DecisionRule(2.0, (0.2, 0.5, 0.9), True, "fp32", floor=1.0)}, True),
    ],
)
def test_probabilities_and_decisions_are_those_of_python(
    native_fp32: NativeModel,
    clip_fp32: clipedge.Clip,
    pictures: Pictures,
    tmp_path: Path,
    changes: dict[str, object],
    several: bool,
) -> None:
    bank = probable(clip_fp32, **changes)
    bank.save(tmp_path / "bank.safetensors")
    native = native_fp32.bank_at(tmp_path / "bank.safetensors")
    embeds = clip_fp32.encode_image(pictures[:60])
    np.testing.assert_allclose(native.classify(embeds), probabilities(embeds, bank), rtol=1e-4, atol=1e-7)

    classifier = clip_fp32.classifier(replace(bank, rule=bank.rule or DecisionRule(1.0, (), several, "fp32")))
    accepted, found = native.decide(embeds, several)
    np.testing.assert_allclose(found, classifier.decision_proba(pictures[:60]), rtol=1e-4, atol=1e-7)
    answers = [tuple(label for label, taken in zip(bank.labels, row, strict=True) if taken) for row in accepted]
    if several:
        assert answers == classifier.decide_all(pictures[:60])
    else:
        assert answers == [() if label is None else (label,) for label in classifier.decide(pictures[:60])]
    assert 0 < sum(map(bool, answers)) < 60  # the test shows both


def test_a_bank_that_never_says_none_does_not_decide(
    native_fp32: NativeModel, clip_fp32: clipedge.Clip, tmp_path: Path
) -> None:
    clip_fp32.prompt_bank(["red circle", "blue star"]).save(tmp_path / "bank.safetensors")
    bank = native_fp32.bank_at(tmp_path / "bank.safetensors")
    embeds = np.zeros((1, 128), np.float32)
    for several, message in ((False, "neither negatives nor thresholds"), (True, "compared with")):
        with pytest.raises(NativeError, match=message) as error:
            bank.decide(embeds, several)
        assert error.value.status == USAGE


def test_a_bank_of_another_model_is_refused(native_fp32: NativeModel, clip_fp32: clipedge.Clip, tmp_path: Path) -> None:
    probable(clip_fp32, space_id="f" * 64).save(tmp_path / "bank.safetensors")
    with pytest.raises(NativeError, match="made for another model") as error:
        native_fp32.bank_at(tmp_path / "bank.safetensors")
    assert error.value.status == SPACE


def test_a_variant_is_chosen_as_in_python(native_int8: NativeModel, native_fp32: NativeModel) -> None:
    info = native_int8.info()
    assert info.variant.startswith(b"int8.") and native_fp32.info().variant == b"fp32"
    assert (info.embedding_dim, info.image_width, info.image_height, info.context_length) == (128, 64, 64, 32)
    assert info.engine.startswith(b"onnxruntime 1.")
