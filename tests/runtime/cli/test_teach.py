"""`clipedge teach` on the demonstration model: a shape that it never saw, in INT8 and float32, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clipedge
from clipedge.calibration.scenes import render, scene_of
from clipedge.cli import main
from clipedge.prompts.bank import PromptBank

LABEL = "red bowtie"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / f"{index}.png" for index in range(28)]
    for index, path in enumerate(paths):
        Image.fromarray(render(scene_of("validation", index, "red", "bowtie"), 96, 72).picture).save(path)
    return paths


@pytest.fixture
def bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_bundle, tmp_path / "bundle"))


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def teach(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: Any) -> tuple[int, str, str]:
        try:
            code = main(["teach", *map(str, arguments)])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return code, *capfd.readouterr()

    return call


def recall(bundle: Path, bank: PromptBank, pictures: list[Path]) -> float:
    return float((clipedge.load(bundle).classifier(bank).predict(pictures) == LABEL).mean())


def test_a_label_is_taught_listed_and_forgotten(teach: Cli, bundle: Path, pictures: list[Path]) -> None:
    file = bundle / "prompts" / "default.safetensors"
    before = file.read_bytes()
    code, out, err = teach(bundle, "--label", LABEL, *pictures[:4])
    assert (code, err) == (0, "")
    assert out == f"{LABEL}: 4 picture(s), without text\nwritten: {file}\n"
    assert recall(bundle, PromptBank.load(file), pictures[4:]) > 0.3
    code, out, _ = teach(bundle, "--bank", "default", "--json")
    assert json.loads(out)["taught"] == [{"label": LABEL, "examples": 4, "text": False}]
    assert json.loads(out)["bank"] is None  # nothing was written
    assert teach(bundle, "--bank", file, "--forget", LABEL)[0] == 0
    assert file.read_bytes() == before
    assert teach(bundle)[1] == "no label was taught by examples\n"


def test_another_file_leaves_the_bank_as_it_was(teach: Cli, bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    file, other = bundle / "prompts" / "default.safetensors", tmp_path / "taught.safetensors"
    before = file.read_bytes()
    assert teach(bundle, "--output", other, "--label", "red star", pictures[0])[0] == 0
    assert file.read_bytes() == before
    assert PromptBank.load(other).labels == PromptBank.load(file).labels


def test_what_one_precision_was_taught_another_one_knows(
    demo_bundle: Path, demo_bundle_fp32: Path, pictures: list[Path]
) -> None:
    shown = clipedge.load(demo_bundle_fp32)
    taught = shown.classifier(shown.saved_bank("default")).teach(LABEL, pictures[:4])
    assert recall(demo_bundle, taught.bank, pictures[4:]) > 0.3
    np.testing.assert_allclose(shown.mean_image(), clipedge.load(demo_bundle).mean_image(), atol=1e-6)


def test_a_bank_of_another_space_is_refused(teach: Cli, bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    bank = PromptBank.load(bundle / "prompts" / "default.safetensors")
    replace(bank, space_id="0" * 64).save(tmp_path / "other.safetensors")
    code, _, err = teach(bundle, "--bank", tmp_path / "other.safetensors", "--label", "x", pictures[0])
    assert (code, "another model" in err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label", "x"), "needs 1 to 16 pictures"),
        (("--label", "x", "{0}", "nowhere.png"), "nowhere.png: there is no such file"),
        (("--label", "x", "{0}", "{broken}"), "broken.png"),
        (("--label", "x", "{0}", "{1}", "{0}"), "picture 3 of 'x' is the same as picture 1"),
        (("--label", "x", *(f"{{{i}}}" for i in range(17))), "at most 16 pictures, found 17"),
        (("--label", " ", "{0}"), "a text that is not empty"),
        (("--forget", "x"), "'x' was not taught"),
        (("--forget", "x", "--label", "x", "{0}"), "not allowed with"),
        (("--output", "o.safetensors"), "--output needs --label L or --forget L"),
        (("--bank", "none", "--forget", "x"), "no prompt bank 'none'"),
    ],
)
def test_a_wrong_call_is_one_line_and_changes_nothing(
    teach: Cli, bundle: Path, pictures: list[Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:200])
    before = (bundle / "prompts" / "default.safetensors").read_bytes()
    code, out, err = teach(bundle, *(part.format(*pictures, broken=broken) for part in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert (bundle / "prompts" / "default.safetensors").read_bytes() == before
