"""clipedge prompts: the bank that it writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import clipedge
from clipedge.cli import main
from clipedge.prompts.templates import TEMPLATE_SETS

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        try:
            code = main(["prompts", *map(str, arguments)])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def copy(demo_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_bundle, tmp_path / "copy")


def test_the_bank_is_the_one_that_python_makes(cli: Cli, demo_bundle: Path, tmp_path: Path) -> None:
    synonyms = tmp_path / "synonyms.txt"
    synonyms.write_text("stop: red circle, red disc\n\nother: a wall,a floor\n", encoding="utf-8-sig")
    negatives = tmp_path / "negatives.txt"
    negatives.write_text("other\ngrey wall\n")
    path = tmp_path / "deep" / "bank.safetensors"
    texts = ("--labels", "stop,blue star", "--synonyms", synonyms, "--negatives", negatives)
    code, out, err = cli(demo_bundle, *texts, "--templates", "photos", "--output", path, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["bank"] == str(path)
    assert document["labels"] == ["stop", "blue star"]
    expected = clipedge.load(demo_bundle).prompt_bank(
        ["stop", "blue star"],
        TEMPLATE_SETS["photos"],
        synonyms={"stop": ["red circle", "red disc"], "other": ["a wall", "a floor"]},
        negatives=["other", "grey wall"],
    )
    found = clipedge.PromptBank.load(path)
    for name in ("labels", "templates", "synonyms", "negatives", "space_id"):
        assert getattr(found, name) == getattr(expected, name)
    np.testing.assert_allclose(found.label_embeds, expected.label_embeds, atol=1e-6)
    assert found.negative_embeds is not None
    assert expected.negative_embeds is not None
    np.testing.assert_allclose(found.negative_embeds, expected.negative_embeds, atol=1e-6)


def test_a_named_bank_lies_in_the_bundle(cli: Cli, copy: Path) -> None:
    code, out, _ = cli(copy, "--labels", "red circle,blue star", "--template", "{}", "--name", "shapes")
    assert code == 0
    assert out == f"{copy / 'prompts' / 'shapes.safetensors'}: 2 labels, 0 negatives, 1 templates\n"
    clip = clipedge.load(copy)
    assert clip.saved_bank("shapes").labels == ("red circle", "blue star")
    assert clip.bundle.bank_names() == ["default", "shapes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "a,b"], "--output --name is required"),
        (["--output", "x"], "--labels is missing"),
        (["--labels", "a,b", "--output", "x", "--name", "y"], "not allowed with"),
        (["--labels", "a,b", "--output", ""], "--output '' is a folder"),
        (["--labels", "a,b", "--output", "{tmp}"], "is a folder; name the bank's file"),
        (["--labels", "a,b", "--name", "../x"], "--name '../x' is no bank's name"),
        (["--labels", "a,b", "--name", ".x"], "--name '.x' is no bank's name"),
        (["--labels", "a,b", "--name", ""], "--name '' is no bank's name"),
        (["--labels", "a,b", "--output", "x", "--templates", "boats"], "the sets are: photos"),
        (["--labels", "a,b", "--output", "x", "--templates", "drones", "--template", "{}"], "give one"),
        (["--labels", "a,b", "--output", "x", "--negatives", ","], "--negatives ',' names no label"),
        (["--labels", "a,b", "--output", "x", "--negatives", "no.txt"], "--negatives no.txt: there is no such file"),
        (["--labels", "a,b", "--output", "x", "--negatives", "b"], "found more than once: b"),
        (["--labels", "a,b", "--output", "x", "--synonyms", "no.txt"], "--synonyms no.txt: there is no such file"),
        (["--labels", "a,b", "--output", "x", "--synonyms", "{tmp}/colonless"], "found 'a, b'"),
        (["--labels", "a,b", "--output", "x", "--synonyms", "{tmp}/twice"], "found 'a: d'"),
        (["--labels", "a,b", "--output", "x", "--synonyms", "{tmp}/binary"], "is not UTF-8 text; synonyms are lines"),
        (["--labels", "a,b", "--output", "x", "--synonyms", "{tmp}/stranger"], "which is no label"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    cli: Cli, demo_bundle: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    files = {"colonless": b"a, b", "twice": b"a: c\na: d", "binary": b"a: \xff", "stranger": b"c: d"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    banks = sorted((demo_bundle / "prompts").iterdir())
    code, out, err = cli(demo_bundle, *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    assert sorted((demo_bundle / "prompts").iterdir()) == banks
