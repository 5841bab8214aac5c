"""clipedge prompts --fit on rendered scenes, where four shapes of twelve are unknown to the bank."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import clipedge
from clipedge.calibration.scenes import CLASSES, SHAPES, labelled_pictures
from clipedge.cli import main
from clipedge.decisions.rule import DecisionRule

KNOWN, UNKNOWN = SHAPES[:8], SHAPES[8:]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["prompts", *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes in folders named for their shape, the unknown ones in "something_else"."""
    folder = tmp_path_factory.mktemp("shapes")
    pictures, labels = labelled_pictures("validation", 240)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        shape = CLASSES[label][1]
        place = folder / (shape if shape in KNOWN else "something_else")
        place.mkdir(exist_ok=True)
        PIL.Image.fromarray(picture).save(place / f"{number}.png")
    return folder


def test_a_fitted_bank_says_none_of_these_to_unknown_shapes(
    cli: Cli, demo_bundle: Path, shapes: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    texts = ("--labels", ",".join(KNOWN), "--negatives", "wall,thing,background", "--template", "a photo of a {}.")
    options = ("--fit", shapes, "--unknown", "something_else", "--recall", "0.95", "--output", path, "--json")
    options = (*options, "--report", tmp_path / "fit.html")
    code, out, err = cli(demo_bundle, *texts, *options)
    assert (code, err) == (0, "")
    document = json.loads(out)
    fit = document["fit"]
    assert fit["temperature_kept"]
    assert fit["calibration_error"][1] < fit["calibration_error"][0]
    assert fit["thresholds_refused"] == ""
    assert fit["after"]["unknown_answered"] < fit["plain"]["unknown_answered"]
    assert fit["after"]["unknown"] + fit["after"]["known"] == fit["held_out"]
    assert document["decision"]["variant"] == "int8.x86"
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert page.count("<svg ") == 2 and f"area {fit['roc']['area']:.3f}" in page
    assert f"error {fit['calibration_error'][1]:.3f}" in page

    # And on scenes that had no part in the fit, neither half.
    clip = clipedge.load(demo_bundle)
    classifier = clip.classifier(clipedge.PromptBank.load(path))
    pictures, labels = labelled_pictures("test", 150)
    truths = np.array([CLASSES[label][1] for label in labels])
    known = np.isin(truths, KNOWN)
    answers = np.array(classifier.decide(pictures), object)
    named = classifier.predict(pictures) == truths
    assert np.mean([answer is not None for answer in answers[named & known]]) > 0.9
    assert np.mean([answer is None for answer in answers[~known]]) > 0.5


def test_the_report_says_what_was_kept(cli: Cli, demo_bundle: Path, shapes: Path, tmp_path: Path) -> None:
    # With all unknown shapes among the negatives little is left to fit.
    texts = ("--labels", ",".join(KNOWN), "--negatives", ",".join(UNKNOWN), "--template", "a photo of a {}.")
    options = ("--fit", shapes, "--unknown", "something_else", "--output", tmp_path / "bank.safetensors")
    (shapes / KNOWN[0] / "broken.png").write_bytes(b"no picture")
    code, out, err = cli(demo_bundle, *texts, *options)
    (shapes / KNOWN[0] / "broken.png").unlink()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].endswith("8 labels, 4 negatives, 1 templates")
    kept = clipedge.PromptBank.load(tmp_path / "bank.safetensors").rule
    temperature, thresholds = (
        next(line for line in lines if name in line) for name in ("  temperature", "  thresholds")
    )
    assert ("NOT KEPT" in thresholds) == (kept is None or kept.thresholds == ())
    assert ("NOT KEPT" in temperature) == (kept is None or kept.temperature == 1)
    for name in ("without a fit", "plain maximum probability", "fitted"):
        assert sum(line.strip().startswith(f"{name} ") and "of unknown answered" in line for line in lines) == 1
    assert "not readable, left out" in lines[-1]


@pytest.mark.parametrize("multi_label", [False, True], ids=["one label", "several"])
def test_classify_decides_by_the_bank(
    demo_bundle: Path, shapes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], multi_label: bool
) -> None:
    clip = clipedge.load(demo_bundle)
    bank = clip.prompt_bank(KNOWN, negatives=UNKNOWN)
    thresholds = (0.6,) * len(KNOWN)
    bank = dataclasses.replace(bank, rule=DecisionRule(2.0, thresholds, multi_label, clip.image_variant))
    bank.save(tmp_path / "bank")
    pictures = sorted(map(str, shapes.rglob("*.png")))[::20]
    arguments = ["classify", str(demo_bundle), *pictures, "--bank", str(tmp_path / "bank"), "--decide"]
    assert main([*arguments, "--json"]) == 0
    decisions = [entry["decision"] for entry in json.loads(capfd.readouterr().out)]
    classifier = clip.classifier(bank)
    if multi_label:
        assert decisions == list(map(list, classifier.decide_all(pictures)))
    else:
        assert decisions == [[label] if label else [] for label in classifier.decide(pictures)]
        assert [] in decisions
    assert main(arguments) == 0
    for path, decision, line in zip(pictures, decisions, capfd.readouterr().out.splitlines(), strict=True):
        assert line.startswith(f"{path}: {' and '.join(decision) or 'none of these'} (")


def test_classify_does_not_decide_where_the_bank_cannot(
    demo_bundle: Path, shapes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = str(next(shapes.rglob("*.png")))
    assert main(["classify", str(demo_bundle), picture, "--labels", "a,b", "--decide"]) == 2
    assert "neither negatives nor thresholds" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unknown", "x"], "--unknown, --recall, --multi-label and --report are for a fit"),
        (["--recall", "0.5"], "are for a fit"),
        (["--multi-label"], "are for a fit"),
        (["--report", "x.html"], "are for a fit"),
        (["--fit", "{shapes}", "--report", "x.png"], "the name has to end in .html"),
        (["--fit", "{shapes}"], "the sub-folders 'something else' are no labels"),
        (["--fit", "{shapes}/no-folder"], "there is no folder of pictures"),
        (["--fit", "{shapes}", "--unknown", "something_else", "--recall", "95"], "a recall is a share"),
        (["--fit", "{shapes}", "--unknown", "something_else", "--multi-label"], "make the bank with negatives"),
    ],
)
def test_a_wrong_fit_is_one_line_and_writes_nothing(
    cli: Cli, demo_bundle: Path, shapes: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    words = [argument.replace("{shapes}", str(shapes)) for argument in arguments]
    code, out, err = cli(demo_bundle, "--labels", ",".join(KNOWN), "--output", tmp_path / "bank", *words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
