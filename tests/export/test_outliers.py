"""Outlier twins of the demonstration model: one function in float, and INT8 that survives what breaks plain min-max."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from transformers import CLIPModel

from clipedge.calibration import scenes
from clipedge.calibration.calibrate import Calibration, calibrate, minmax_calibration, observe_layers
from clipedge.calibration.quantize import quantize
from clipedge.calibration.rounding import SCHEMES
from clipedge.calibration.storage import cpu_session
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.demo.outliers import CHANNELS, CONSTANT, write_outlier_twin
from clipedge.export.proof import source_encoder
from clipedge.export.source_texts import SourceTexts
from clipedge.export.sources import image_source
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.images.pixels import preprocess
from clipedge.selftest import centred_cosines

FACTORS = (10.0, 50.0, 300.0)
SCENES = 1000
CALIBRATION_SCENES = 192
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Proof pictures with the source model's embeddings and label bank, and calibration pictures."""

    calibration: npt.NDArray[np.uint8]
    proof: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int64]
    embeds: Floats
    bank: Floats

    def accuracy(self, embeds: Floats) -> float:
        return float(((embeds @ self.bank.T).argmax(axis=1) == self.truth).mean())


@pytest.fixture(scope="module")
def pictures() -> Scenes:
    checkpoint = load_checkpoint(DEMO_CHECKPOINT)
    proof, truth = scenes.labelled_pictures("test", SCENES)
    encode = source_encoder(build_image_tower(checkpoint))
    texts = SourceTexts(checkpoint)
    bank = np.mean([texts.encode([t.format(name) for name in scenes.CLASS_NAMES]) for t in scenes.TEMPLATES], axis=0)
    embeds = np.concatenate([encode(proof[i : i + 50]) for i in range(0, SCENES, 50)])
    return Scenes(scenes.labelled_pictures("calibration", CALIBRATION_SCENES)[0], proof, truth, embeds, bank)


@pytest.fixture(scope="module", params=FACTORS)
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Path]:
    folder = tmp_path_factory.mktemp("twins") / f"{request.param:g}"
    return request.param, write_outlier_twin(DEMO_CHECKPOINT, folder, request.param)


def test_a_twin_gives_the_originals_answers_in_float(twin: tuple[float, Path]) -> None:
    _, folder = twin
    pixels, _ = scenes.labelled_pictures("test", 8)
    tokens = SourceTexts(load_checkpoint(DEMO_CHECKPOINT)).tokenizer(["a red circle", "two blue stars on the left"])
    for build, inputs in ((build_image_tower, pixels), (build_text_tower, tokens)):
        original, found = (source_encoder(build(load_checkpoint(path)))(inputs) for path in (DEMO_CHECKPOINT, folder))
        np.testing.assert_allclose(found, original, atol=2e-5)


def test_transformers_reads_a_twin_as_we_do_and_it_has_its_outliers(twin: tuple[float, Path]) -> None:
    factor, folder = twin
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    checkpoint = load_checkpoint(folder)
    pixels, _ = scenes.labelled_pictures("test", 8)
    expected = source_encoder(build_image_tower(checkpoint))(pixels)
    mean, std = (torch.tensor(values) for values in (checkpoint.preprocessing.mean, checkpoint.preprocessing.std))
    normalised = ((torch.from_numpy(preprocess(list(pixels), checkpoint.preprocessing)) / 255 - mean) / std).float()
    seen: dict[str, torch.Tensor] = {}
    layer = model.vision_model.encoder.layers[1]
    for name in ("layer_norm1", "layer_norm2", "self_attn.v_proj"):
        layer.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    layer.mlp.activation_fn.register_forward_hook(lambda _, __, out: seen.update(gelu=out))
    with torch.no_grad():
        vision = model.vision_model(normalised.permute(0, 3, 1, 2))
        embeds = model.visual_projection(vision.pooler_output)
    np.testing.assert_allclose(torch.nn.functional.normalize(embeds, dim=-1).numpy(), expected, atol=2e-5)
    assert (seen["gelu"][..., -1] == CONSTANT).all()
    for name in ("layer_norm1", "layer_norm2", "self_attn.v_proj"):
        sizes = seen[name].abs().amax(dim=(0, 1))
        assert sizes[list(CHANNELS)].median() > 0.2 * factor * sizes.median(), name


@dataclass(frozen=True, eq=False)
class Twin:
    """A twin's image tower: its float graph and two calibrations of it."""

    model: onnx.ModelProto
    pixel_mean: tuple[float, ...]
    searched: Calibration
    plain: Calibration

    def embeds(self, calibration: Calibration, pixels: npt.NDArray[np.uint8]) -> Floats:
        session = cpu_session(quantize(self.model, calibration, SCHEMES["x86"], self.pixel_mean))
        batches = [pixels[i : i + 25] for i in range(0, len(pixels), 25)]
        return np.concatenate([session.run(None, {"pixels": batch})[0] for batch in batches])


@pytest.fixture(scope="module")
def calibrated(twin: tuple[float, Path], pictures: Scenes) -> Twin:
    checkpoint = load_checkpoint(twin[1])
    # Streams are what an export calibrates on; here the pictures are in memory.
    source = image_source(checkpoint, [], [])  # type: ignore[arg-type]
    path = twin[1].with_suffix(".onnx")
    source.write_graph(path)
    model = onnx.load(path)
    observed = observe_layers(model, np.array_split(pictures.calibration, CALIBRATION_SCENES // 16), source.weigh)
    searched = calibrate(model, observed, SCHEMES["x86"])
    return Twin(model, tuple(source.pixel_mean), searched, minmax_calibration(model, observed))


@pytest.mark.slow
def test_int8_of_a_twin_keeps_the_answers(twin: tuple[float, Path], calibrated: Twin, pictures: Scenes) -> None:
    found = calibrated.embeds(calibrated.searched, pictures.proof)
    cosines = centred_cosines(pictures.embeds, found, pictures.embeds.mean(axis=0))
    before, after = pictures.accuracy(pictures.embeds), pictures.accuracy(found)
    assert before > 0.8, "the bank is right"
    assert 100 * (before - after) <= 1.0
    assert np.median(cosines) >= 0.995


@pytest.mark.slow
def test_plain_minmax_collapses_on_the_worst_twin(twin: tuple[float, Path], calibrated: Twin, pictures: Scenes) -> None:
    """What the twins are for: without this, passing the test above would mean little."""
    found = calibrated.embeds(calibrated.plain, pictures.proof)
    cosines = centred_cosines(pictures.embeds, found, pictures.embeds.mean(axis=0))
    accuracy = pictures.accuracy(found)
    if twin[0] < max(FACTORS):
        assert np.median(cosines) < 0.99
    else:
        assert accuracy < 0.5 * pictures.accuracy(pictures.embeds)
        assert np.median(cosines) < 0.7
