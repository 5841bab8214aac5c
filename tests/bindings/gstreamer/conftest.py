"""The GStreamer plugin, and a video that the project draws itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import clipedge

sys.path.insert(0, str(Path(__file__).parent))  # for the files here that are no tests

from building import install
from playing import Player, Video, build_plugin, compile_player


@pytest.fixture(scope="session")
def prefix(built: Path) -> Path:
    """Where libclipedge is installed."""
    return install(built, "gstreamer-prefix")


@pytest.fixture(scope="session")
def player(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Player:
    if shutil.which("gst-launch-1.0") is None:
        pytest.fail("GStreamer is not installed: make gstreamer-dependencies")
    folder = tmp_path_factory.mktemp("player")
    plugin = build_plugin("gstreamer", prefix)
    return Player(compile_player(folder / "play", prefix), plugin, folder / "registry")


@pytest.fixture(scope="session")
def video(clip_fp32: clipedge.Clip, tmp_path_factory: pytest.TempPathFactory) -> Video:
    from clipedge.calibration.scenes import CLASSES, render, scene_of

    folder = tmp_path_factory.mktemp("video")
    classes = [CLASSES[5 * number] for number in range(24)]
    scenes = [scene_of("test", number, *pair) for number, pair in enumerate(classes)]
    pictures = np.stack([np.asarray(render(scene, 96, 80).picture) for scene in scenes])
    for number, picture in enumerate(pictures):
        PIL.Image.fromarray(picture).save(folder / f"{number:05d}.png")
    raw = folder / "video.rgb"
    raw.write_bytes(pictures.tobytes())
    labels = clip_fp32.classifier(clip_fp32.saved_bank("default")).predict(list(pictures))
    return Video(folder, raw, pictures, tuple(" ".join(pair) for pair in classes), tuple(map(str, labels)))
