"""Models made and answered for by the libraries they come from, in their own environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from clipedge.calibration import scenes
from clipedge.calibration.drawing import render
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.images.pixels import preprocess

ROOT = Path(__file__).parents[2]
ORIGIN_PYTHON = Path(os.environ.get("CLIPEDGE_ORIGIN_PYTHON", ROOT / ".venv-origin" / "bin" / "python"))

TEXTS = ["a photo of a cat", "A  red cube, on the left!", "deux chiens", "x" * 400, ""]

AskOrigin = Callable[..., Path]
RunAtOrigin = Callable[..., str]
Array = npt.NDArray[Any]
AssertAsOrigin = Callable[[Checkpoint, Path, Path], None]

PARITY = 1e-5


@pytest.fixture(scope="session")
def origin_python() -> Path:
    """The Python that has the libraries of origin."""
    if not ORIGIN_PYTHON.exists():
        raise RuntimeError(f"there is no {ORIGIN_PYTHON}; make it: make .venv-origin/.installed")
    return ORIGIN_PYTHON


@pytest.fixture(scope="session")
def run_at_origin(origin_python: Path) -> RunAtOrigin:
    """(arguments): Python in the origin's environment, with ClipEdge beside open_clip. Returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).with_name("site")), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [str(origin_python), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def export_at_origin(run_at_origin: RunAtOrigin) -> Callable[..., None]:
    """(model, output, further options): ``clipedge export`` in the origin's environment, where open_clip is."""

    def run(model: Path, output: Path, *options: str) -> None:
        run_at_origin("-m", "clipedge", "export", str(model), "--output", str(output), *options)

    return run


@pytest.fixture(scope="session")
def ask_origin(origin_python: Path) -> AskOrigin:
    """(a folder to make, open_clip's model name, further keys of job.json) -> the folder, filled by ``worker.py``."""

    def ask(folder: Path, model: str, **job: Any) -> Path:
        folder.mkdir(exist_ok=True)
        for index, (width, height) in enumerate([(320, 240), (200, 400), (96, 90), (640, 360)]):
            noise = np.random.default_rng(index).normal(0, 20, (height, width, 3))
            scene = render(scenes.labelled_scene("test", index)[0], width, height).picture
            Image.fromarray(np.clip(scene + noise, 0, 255).astype(np.uint8)).save(folder / f"{index}.png")
        job = {"model": model, **job}
        if "input_ids" not in job:
            job.setdefault("texts", TEXTS)
        (folder / "job.json").write_text(json.dumps(job))
        command = [str(origin_python), str(Path(__file__).with_name("worker.py")), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the origin's library failed on {model}:\n{done.stderr}")
        return folder

    return ask


@pytest.fixture(scope="session")
def assert_as_origin() -> AssertAsOrigin:
    """(checkpoint, the origin's folder, a folder for graphs): towers and graphs give what the origin gave for its
    pictures and token ids, and so do the logits."""

    def check(checkpoint: Checkpoint, folder: Path, workspace: Path) -> None:
        origin = load_file(folder / "origin.safetensors")
        pixels = preprocess(sorted(folder.glob("*.png")), checkpoint.preprocessing)
        image_tower, text_tower = build_image_tower(checkpoint), build_text_tower(checkpoint)
        write_image_graph(image_tower, workspace / "image.onnx")
        write_text_graph(text_tower, workspace / "text.onnx")
        image = _run(workspace / "image.onnx", pixels)
        text = _run(workspace / "text.onnx", origin["input_ids"])
        for found, name in (
            (image_tower(torch.from_numpy(pixels)).numpy(), "image_embeds"),
            (image, "image_embeds"),
            (text_tower(torch.from_numpy(origin["input_ids"])).numpy(), "text_embeds"),
            (text, "text_embeds"),
        ):
            expected = origin[name]
            assert np.abs(expected - expected.mean(axis=0)).max() > 1e3 * PARITY  # the inputs can be told apart
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= PARITY, name
        logits = checkpoint.logit_scale * image @ text.T + checkpoint.logit_bias
        assert np.abs(logits - origin["logits"]).max() <= 2 * PARITY * checkpoint.logit_scale

    return check


def _run(graph: Path, inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeds,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return embeds
