"""clipedge prompts --tune on rendered scenes, whose shapes have bad names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import clipedge
from clipedge.bundle import MANIFEST_NAME
from clipedge.calibration.scenes import CLASSES, COLORS, SHAPES, labelled_pictures, render, scene_of
from clipedge.cli import main

Cli = Callable[..., tuple[int, str, str]]
GOOD = SHAPES[:6]
BAD = ("cirlce", "sqaure", "trianlge", "dimaond", "satr", "haert")


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["prompts", *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


def write(folder: Path, names: tuple[str, ...], start: int) -> Path:
    """10 scenes of each shape, in sub-folders of these names."""
    for shape, name in zip(GOOD, names, strict=True):
        (folder / name).mkdir(parents=True)
        for number, color in enumerate(COLORS):
            picture = render(scene_of("validation", start + number, color, shape), 64, 64).picture
            PIL.Image.fromarray(picture).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "bad" and "good" with the same pictures, "more" with others of bad names."""
    folder = tmp_path_factory.mktemp("tune")
    write(folder / "bad", BAD, 0)
    write(folder / "good", GOOD, 0)
    write(folder / "more", BAD, 100)
    return folder


def accuracy(bundle: Path, bank: clipedge.PromptBank) -> float:
    """On scenes of "test", whatever the labels are called."""
    pictures, labels = labelled_pictures("test", 400)
    places = np.array([SHAPES.index(CLASSES[label][1]) for label in labels])
    known = places < len(GOOD)
    answers = clipedge.load(bundle).classifier(bank).predict_proba(pictures[known]).argmax(axis=1)
    return float((answers == places[known]).mean())


def test_bad_names_are_tuned_and_the_report_says_by_how_much(
    cli: Cli, demo_bundle: Path, folders: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    texts = ("--labels", ",".join(BAD), "--templates", "photos")
    code, out, err = cli(demo_bundle, *texts, "--tune", folders / "bad", "--output", path, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    tuning, tuned = document["tuning"], document["tuned"]
    assert (tuning["pictures"], tuning["left_out"], document["unreadable"]) == (60, 0, [])
    assert [trial["name"] for trial in tuning["trials"]] == ["templates", "label embeddings"]
    assert tuned == {
        "kept": [trial["name"] for trial in tuning["trials"] if trial["kept"]],
        "pictures": 60,
        "accuracy": tuning["accuracy"],
    }
    assert "label embeddings" in tuned["kept"]
    plain = clipedge.load(demo_bundle).prompt_bank(BAD, tuning["templates"])
    bank = clipedge.PromptBank.load(path)
    assert bank.labels == BAD
    assert bank.tuned is not None
    assert bank.tuned.pictures == 60
    assert accuracy(demo_bundle, bank) > accuracy(demo_bundle, plain) + 0.1


def test_good_names_stay_as_they_are(cli: Cli, demo_bundle: Path, folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    (folders / "good" / GOOD[0] / "broken.png").write_bytes(b"no picture")
    texts = ("--labels", ",".join(GOOD), "--template", "a photo of a {}.", "--template", "{}")
    code, out, err = cli(demo_bundle, *texts, "--tune", folders / "good", "--output", path)
    (folders / "good" / GOOD[0] / "broken.png").unlink()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{path}: 6 labels, 0 negatives, 2 templates"
    assert lines[1] == "  tuned on 60 pictures, judged on each by what was tuned on the other folds of 5:"
    for name in ("templates", "label embeddings"):
        (line,) = (line for line in lines if line.strip().startswith(name))
        assert line.endswith("NOT KEPT, no gain is proven")
    assert "not readable, left out" in lines[-1]
    bank = clipedge.PromptBank.load(path)
    plain = clipedge.load(demo_bundle).prompt_bank(GOOD, ["a photo of a {}.", "{}"])
    assert bank.tuned is None
    np.testing.assert_array_equal(bank.label_embeds, plain.label_embeds)


def test_a_tuned_bank_is_fitted_on_other_pictures(cli: Cli, demo_bundle: Path, folders: Path, tmp_path: Path) -> None:
    options = ("--tune", folders / "bad", "--fit", folders / "more", "--output", tmp_path / "bank")
    code, out, err = cli(demo_bundle, "--labels", ",".join(BAD), *options, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["fit"]["fitted_on"] + document["fit"]["held_out"] == 60
    bank = clipedge.PromptBank.load(tmp_path / "bank")
    assert bank.tuned is not None
    assert (bank.rule is not None) == (document["decision"] is not None)


def test_a_bank_is_tuned_without_text_tower(cli: Cli, demo_bundle: Path, folders: Path, tmp_path: Path) -> None:
    clip = clipedge.load(demo_bundle)
    plain = clip.prompt_bank(BAD, ["a photo of a {}.", "{}"])
    folder = tmp_path / "image-only"
    shutil.copytree(demo_bundle, folder)
    manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["variants"] = [variant for variant in manifest["variants"] if variant["tower"] == "image"]
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != "tokenizer.json"]
    manifest["context_length"] = None
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    plain.save(folder / "prompts" / "bad.safetensors")
    code, out, err = cli(folder, "--bank", "bad", "--tune", folders / "bad", "--name", "tuned")
    assert (code, err) == (0, "")
    assert "not tried: a bank has its texts only as their ensemble" in out
    tuned = clipedge.load(folder).saved_bank("tuned")
    assert tuned.tuned is not None
    assert (tuned.tuned.kept, tuned.templates) == (("label embeddings",), plain.templates)
    assert accuracy(demo_bundle, tuned) > accuracy(demo_bundle, plain) + 0.1

    code, _, err = cli(folder, "--bank", "tuned", "--tune", folders / "bad", "--name", "again")
    assert code == 2
    assert "the bank was tuned already" in err
    code, _, err = cli(folder, "--labels", ",".join(BAD), "--tune", folders / "bad", "--name", "again")
    assert code == 2
    assert "has no text tower; use a prompt bank" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tune", "{folders}/none"], "there is no folder of pictures"),
        (["--tune", "{folders}/good"], "the sub-folders"),
        (["--tune", "{folders}/bad", "--recall", "0.9"], "are for a fit"),
        (["--tune", "{folders}/bad", "--fit", "{folders}/bad"], "--tune and --fit share 60 pictures"),
        (["--tune", "{folders}/bad", "--fit", "{folders}/../{name}/bad"], "--tune and --fit share 60 pictures"),
        (["--tune", "{folders}/bad/satr"], "outside of sub-folders"),
        (["--tune", "{folders}/bad", "--bank", "default"], "--bank has its labels and texts in it"),
        (["--bank", "default", "--labels", ""], "names no label"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    cli: Cli, demo_bundle: Path, folders: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    words = [word.replace("{folders}", str(folders)).replace("{name}", folders.name) for word in arguments]
    code, out, err = cli(demo_bundle, "--labels", ",".join(BAD), "--output", tmp_path / "bank", *words)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_bank_alone_is_nothing_to_do(cli: Cli, demo_bundle: Path, tmp_path: Path) -> None:
    code, _, err = cli(demo_bundle, "--bank", "default", "--output", tmp_path / "bank")
    assert code == 2
    assert "name pictures with --tune DIR or --fit DIR" in err
