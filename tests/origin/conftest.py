"""Models made and answered for by the libraries they come from, in their own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipedge.calibration import scenes
from clipedge.calibration.drawing import render

ROOT = Path(__file__).parents[2]
ORIGIN_PYTHON = Path(os.environ.get("CLIPEDGE_ORIGIN_PYTHON", ROOT / ".venv-origin" / "bin" / "python"))

TEXTS = ["a photo of a cat", "A  red cube, on the left!", "deux chiens", "x" * 400, ""]

AskOrigin = Callable[..., Path]


@pytest.fixture(scope="session")
def ask_origin(tmp_path_factory: pytest.TempPathFactory) -> AskOrigin:
    """(open_clip's model name, further keys of job.json) -> the folder that ``worker.py`` filled."""
    if not ORIGIN_PYTHON.exists():
        raise RuntimeError(f"there is no {ORIGIN_PYTHON}; make it: make .venv-origin/.installed")

    def ask(model: str, **job: Any) -> Path:
        folder = tmp_path_factory.mktemp(model)
        for index, (width, height) in enumerate([(320, 240), (200, 400), (96, 90), (640, 360)]):
            noise = np.random.default_rng(index).normal(0, 20, (height, width, 3))
            scene = render(scenes.labelled_scene("test", index)[0], width, height).picture
            Image.fromarray(np.clip(scene + noise, 0, 255).astype(np.uint8)).save(folder / f"{index}.png")
        job = {"model": model, **job}
        if "input_ids" not in job:
            job.setdefault("texts", TEXTS)
        (folder / "job.json").write_text(json.dumps(job))
        command = [str(ORIGIN_PYTHON), str(Path(__file__).with_name("worker.py")), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the origin's library failed on {model}:\n{done.stderr}")
        return folder

    return ask
