"""The whole job: a model and pictures to a tuned model that export and the runtime take."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import clipedge
from clipedge.calibration import scenes
from clipedge.cli import main
from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.finetuning import Recipe, finetune
from clipedge.export.finetuning.pipeline import Forgetting
from clipedge.export.finetuning.towers import Towers, check_model
from clipedge.export.towers import build_image_tower

RECIPE = Recipe(steps=6, batch_size=12, learning_rate=1e-3, validate_every=3)
SETTINGS = ["--steps", "6", "--batch-size", "12", "--learning-rate", "0.001", "--validate-every", "3"]
CHECKPOINT_FILES = {
    "config.json", "model.safetensors", "preprocessor_config.json", "README.md", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 labelled scenes as the model was trained on. Not to be changed."""
    folder = tmp_path_factory.mktemp("original")
    scenes.write_folder(folder, "validation", 24, width=64, height=64, by_label=True)
    return folder


@pytest.fixture(scope="module")
def tuned(classes: Path, original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tuned by the command line on dark classes, which validate it, too. Not to be changed."""
    folder = tmp_path_factory.mktemp("tuned") / "out"
    command = ["finetune", "--data", str(classes), "--validation", str(classes), "--original", str(original)]
    assert main([*command, "--output", str(folder), *SETTINGS]) == 0
    return folder


def test_the_folder_holds_a_model_and_its_story(tuned: Path, model: Checkpoint) -> None:
    names = {path.name for path in tuned.iterdir()}
    curves = {"loss.svg": 1, "validation.svg": 6, "interpolation.svg": 6}
    assert names == CHECKPOINT_FILES | {"finetune.json", "training", *curves}
    for name, lines in curves.items():  # with one more for each entry of a legend
        picture = ElementTree.fromstring((tuned / name).read_text(encoding="utf-8"))
        assert len(picture.findall("{http://www.w3.org/2000/svg}polyline")) == lines
    run = json.loads((tuned / "finetune.json").read_bytes())
    loaded, result = load_checkpoint(tuned), run["result"]
    assert result["space_id"] == loaded.space_id != model.space_id
    assert run["settings"]["recipe"]["learning_rate"] == 0.001 and run["settings"]["space_id"] == model.space_id
    assert [point["alpha"] for point in result["points"]] == [tenth / 10 for tenth in range(11)]
    assert result["before"]["domain"]["cosine"] == pytest.approx(1, abs=1e-5)
    assert result["classes"] == 4 and result["domain"] == "zero-shot top-1 of 4 classes"
    assert loaded.license == model.license and json.loads(loaded.tokenizer_json) == json.loads(model.tokenizer_json)
    card = (tuned / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned" in card and f"alpha {result['alpha']:g}" in card and "base_model" in card


def test_the_written_model_lies_where_the_result_says(
    tuned: Path, model: Checkpoint, classes: Path, original: Path, tmp_path: Path
) -> None:
    """On the line between the model before and the tuned one, in float64."""
    copy = shutil.copytree(tuned, tmp_path / "copy")
    state = (copy / "training" / "state.safetensors").stat().st_mtime_ns
    weights = {}
    for alpha in (0.35, 1.0):
        found = finetune(None, classes, copy, recipe=RECIPE, validation=classes, forgetting=Forgetting(alpha=alpha))
        assert found.alpha == alpha and found.after.alpha == alpha and found.original is None
        weights[alpha] = Towers(load_checkpoint(copy)).weights()
    assert (copy / "training" / "state.safetensors").stat().st_mtime_ns == state  # nothing was trained again
    before = Towers(model).weights()
    for name, weight in weights[0.35].items():
        expected = 0.65 * before[name].double() + 0.35 * weights[1.0][name].double()
        torch.testing.assert_close(weight.double(), expected, atol=1e-5, rtol=0)
    assert any(not torch.equal(weight, before[name]) for name, weight in weights[1.0].items())


def test_pairs_and_updates_of_low_rank(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an original set it goes half way; a tenth of the pictures validates it; JSON on stdout."""
    command = ["finetune", str(DEMO_CHECKPOINT), "--data", str(pairs), "--output", str(tmp_path / "out"), "--lora", "4"]
    assert main([*command, "--steps", "2", "--batch-size", "8", "--json", "--image-image", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["domain_pictures"], found["classes"]) == (36, 4, None)
    assert found["lora"] == 4 and found["alpha"] == 0.5 and found["after"]["original"] is None
    assert found["domain"].startswith("own caption of") and found["trained_parameters"] < 200_000
    assert load_checkpoint(tmp_path / "out").space_id == found["space_id"]


def test_the_table_on_a_terminal(
    tuned: Path, classes: Path, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(tuned, tmp_path / "copy")
    command = ["finetune", "--data", str(classes), "--validation", str(classes), "--original", str(original)]
    assert main([*command, "--output", str(copy), *SETTINGS, "--max-forgetting", "100"]) == 0
    printed = capsys.readouterr().out
    assert "alpha 1 of 0 (before) to 1 (tuned)" in printed and "4 classes, 4 prompts, 6 steps" in printed
    assert "original set (zero-shot top-1 of " in printed and f"model: {copy}" in printed


def test_another_run_in_the_same_folder_is_refused(tuned: Path, classes: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tuned, tmp_path / "copy")
    other = dataclasses.replace(RECIPE, lora=2)
    with pytest.raises(UsageError, match=r"other settings: expected recipe\.lora 2, found None"):
        finetune(None, classes, copy, recipe=other, validation=classes)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"no finetune\.json"):
        finetune(None, classes, tmp_path / "mine", recipe=RECIPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "there is no folder"),
        (["--data", "{bare}"], "has no captions"),
        (["--data", "{empty}"], "holds no pictures"),
        (["--data", "{broken}"], "none of the 18 pictures"),
        (["--data", "{classes}", "--labels", "cat,dog"], "the labels are not the classes"),
        (["--data", "{classes}", "--validation", "{original}"], "classes that the training pictures have not"),
        (["--data", "{classes}", "--validation", "{bare}"], "neither classes nor captions"),
        (["--data", "{classes}", "--original", "{bare}"], "neither classes nor captions"),
        (["--data", "{classes}", "--batch-size", "100"], "36 pictures are left"),
        (["--data", "{classes}", "--text-text", "1"], "leave --text-text out"),
        (["--data", "{classes}", "--lora", "500"], "a rank of 31 at most"),
        (["--data", "{classes}", "--alpha", "1.5"], "expected alpha from 0"),
        (["--data", "{classes}", "--max-forgetting", "-1"], "expected max_forgetting in points"),
        (["--data", "{classes}", "--export", "int9"], "--export int9"),
        (["--data", "{classes}", "--seed", "-1"], "expected seed to be 0 or more"),
        (["nobody-has-this", "--data", "{classes}"], "nobody-has-this"),
    ],
)
def test_a_wrong_call_ends_before_anything_is_trained(
    options: list[str],
    message: str,
    classes: Path,
    pairs: Path,
    original: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    for number in range(20):
        (tmp_path / "broken" / f"{number}.png").write_bytes(b"no picture")
        (tmp_path / "broken" / f"{number}.txt").write_text("a caption")
    places = {"classes": classes, "original": original, "bare": pairs.parent}
    places |= {name: tmp_path / name for name in ("empty", "broken")}
    command = ["finetune", *(option.format_map(places) for option in options)]
    size = [] if "--batch-size" in options else ["--batch-size", "12"]
    assert main([*command, "--output", str(tmp_path / "out"), *size]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and not printed.out and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_saved_as_a_clip_is_refused(model: Checkpoint) -> None:
    check_model(model)
    for other in (
        dataclasses.replace(model, activation="sigmoid"),
        dataclasses.replace(model, text=dataclasses.replace(model.text, causal=False)),  # type: ignore[type-var]
        dataclasses.replace(model, image=dataclasses.replace(model.image, pool="map")),  # type: ignore[type-var]
    ):
        with pytest.raises(CheckpointError, match="saved in CLIP's layout"):
            check_model(other)


@pytest.mark.slow
def test_the_bundle_gives_the_tuned_models_answers(
    tuned: Path, classes: Path, original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(tuned, tmp_path / "copy")
    command = ["finetune", "--data", str(classes), "--validation", str(classes), "--original", str(original)]
    assert main([*command, "--output", str(copy), *SETTINGS, "--export", "fp32"]) == 0
    assert f"bundle: {copy / 'bundle'}" in capsys.readouterr().out
    clip, checkpoint = clipedge.load(copy / "bundle"), load_checkpoint(tuned)
    assert clip.manifest.space_id == checkpoint.space_id
    pictures, _ = scenes.labelled_pictures("test", 4, size=64)
    with torch.inference_mode():
        own = build_image_tower(checkpoint)(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(clip.encode_image(pictures), own, atol=1e-5)
