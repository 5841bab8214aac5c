"""`clipedge explain` as a user calls it: what it draws and prints, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from clipedge.calibration.scenes import render, sample_scene
from clipedge.cli import main

Cli = Callable[..., tuple[int, str, str]]

SCENE = sample_scene("validation", 0, objects=2)
LABELS = [f"{item.color} {item.shape}" for item in SCENE.objects]


@pytest.fixture
def explain(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: Any) -> tuple[int, str, str]:
        try:
            code = main(["explain", *map(str, arguments)])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    PIL.Image.fromarray(render(SCENE, 320, 240).picture).save(path)
    return path


def test_it_draws_the_map_and_prints_the_boxes(
    explain: Cli, demo_bundle_dense: Path, picture: Path, tmp_path: Path
) -> None:
    output = tmp_path / "heatmap.png"
    code, out, err = explain(demo_bundle_dense, picture, "--label", LABELS[0], "--output", output)
    assert (code, err) == (0, "")
    first, *boxes, last = out.splitlines()
    assert first.startswith(f"{picture}: {LABELS[0]} 0.") and last == f"written: {output}"
    assert boxes and all(line.startswith("  box ") for line in boxes)
    with PIL.Image.open(output) as drawn:
        assert drawn.size[0] == 320 and drawn.size[1] > 240


def test_json_has_the_map_and_where_it_lies(
    explain: Cli, demo_bundle_dense: Path, picture: Path, tmp_path: Path
) -> None:
    options = ("--output", tmp_path / "heatmap.jpg", "--json")
    code, out, err = explain(demo_bundle_dense, picture, "--label", LABELS[1], "--labels", ",".join(LABELS), *options)
    document = json.loads(out)
    assert (code, err) == (0, "")
    values = np.array(document["map"]["values"])
    assert values.shape == (8, 8)
    assert document["size"] == [320, 240] and document["label"] == LABELS[1]
    left, top, right, bottom = document["map"]["region"]
    assert abs(left - 40) < 4 and top == 0 and abs(right - 280) < 4 and bottom == 240  # 85 pixels wide, not 85.3
    row, column = divmod(int(values.argmax()), 8)
    x, y = document["peak"]
    assert abs(x - (column + 0.5) * 30 - left) <= 2 and abs(y - (row + 0.5) * 30) <= 2
    assert 0 <= document["probability"] <= 1 and document["engine"]["arithmetic"]
    assert {"left", "top", "right", "bottom", "score"} == set(document["boxes"][0])


def test_a_label_that_the_bank_has_not_is_embedded_now(
    explain: Cli, demo_bundle_dense: Path, picture: Path, tmp_path: Path
) -> None:
    """The bundle's bank has classes; a shape alone is none of them."""
    shape = SCENE.objects[0].shape
    code, out, _ = explain(demo_bundle_dense, picture, "--label", shape, "--output", tmp_path / "h.png", "--json")
    assert code == 0 and json.loads(out)["label"] == shape


def test_what_cannot_be_explained(
    explain: Cli, demo_bundle: Path, demo_bundle_dense: Path, picture: Path, tmp_path: Path
) -> None:
    output = tmp_path / "heatmap.png"
    for code, message, arguments in (
        (1, "`clipedge export --dense`", (demo_bundle, picture, "--label", "red star", "--output", output)),
        (2, "no such file", (demo_bundle_dense, tmp_path / "no.png", "--label", "red star", "--output", output)),
        (2, ".png or .jpg", (demo_bundle_dense, picture, "--label", "red star", "--output", tmp_path / "map.txt")),
        (2, "--label", (demo_bundle_dense, picture, "--output", output)),
        (2, "text that is not empty", (demo_bundle_dense, picture, "--label", " ", "--output", output)),
    ):
        found, out, err = explain(*arguments)
        assert (found, out) == (code, "") and message in err and len(err.splitlines()) == 1
    assert not output.exists()
