"""The camera loop of docs/ runs as it is told, on a folder of frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import PIL.Image

from clipedge.calibration.scenes import render, scene_of

LOOP = Path(__file__).parents[2] / "docs" / "camera_loop.py"


def test_the_camera_loop(demo_bundle: Path, tmp_path: Path) -> None:
    for index, pair in enumerate([("red", "star")] * 15 + [("blue", "circle")] * 15):
        picture = render(scene_of("test", 3, *pair), 96, 64).picture
        PIL.Image.fromarray(picture).save(tmp_path / f"{index:02d}.png")
    outcome = subprocess.run(
        [sys.executable, str(LOOP), str(demo_bundle), str(tmp_path)], capture_output=True, text=True, check=True
    )
    *events, counts = outcome.stdout.splitlines()
    assert [line.split("  ")[-1] for line in events][:1] == ["red star appeared"]
    assert {line.split("  ")[-1] for line in events} == {"red star appeared", "red star left", "blue circle appeared"}
    assert counts == "Counts(seen=30, unchanged=28, late=0, answered=2)"
