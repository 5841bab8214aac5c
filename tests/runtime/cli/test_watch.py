"""`clipedge watch` on scenes that come and go, with the demonstration model: a folder, and a rendered video."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from clipedge.calibration.scenes import render, scene_of
from clipedge.cli import main

LABELS = "red star,blue circle"
FPS = 10
SHOWN = (("red", "star"), ("blue", "circle"))  # two seconds each
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def watch(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: Any) -> tuple[int, str, str]:
        try:
            code = main(["watch", *map(str, arguments)])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return code, *capfd.readouterr()

    return call


def sequence() -> list[npt.NDArray[np.uint8]]:
    """What a camera with a noisy sensor would see: a scene for two seconds, then another one."""
    rng = np.random.default_rng(0)
    stills = [render(scene_of("test", 3, *pair), 160, 120).picture for pair in SHOWN]
    return [
        np.asarray((still + rng.normal(0, 2, still.shape)).round().clip(0, 255), np.uint8)
        for still in stills
        for _ in range(2 * FPS)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frames")
    for index, picture in enumerate(sequence()):
        PIL.Image.fromarray(picture).save(path / f"{index:04d}.png")
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cv2 = pytest.importorskip("cv2", reason="needs the extra camera")
    path = tmp_path_factory.mktemp("video") / "scenes.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (160, 120))
    assert writer.isOpened()
    for picture in sequence():
        writer.write(picture[:, :, ::-1])
    writer.release()
    return path


def check_events(lines: list[dict[str, Any]]) -> None:
    *events, end = lines
    assert events[0]["label"] == "red star"
    assert sorted((event["kind"], event["label"]) for event in events) == [
        ("appeared", "blue circle"),
        ("appeared", "red star"),
        ("left", "red star"),
    ]
    assert events[0]["since"] == pytest.approx(0, abs=1e-6)
    for event in events[1:]:
        assert 2 <= event["since"] <= event["timestamp"] < 3.5
    frames = end["frames"]
    assert (end["kind"], end["present"]) == ("end", ["blue circle"])
    assert frames["seen"] == 4 * FPS == sum(frames[name] for name in ("unchanged", "late", "answered"))
    assert frames["late"] == 0
    assert end["engine"]["backend"]


def test_a_folder_of_frames(watch: Cli, demo_bundle: Path, folder: Path) -> None:
    code, out, err = watch(demo_bundle, folder, "--labels", LABELS, "--fps", FPS, "--json")
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    check_events(lines)
    assert lines[-1]["frames"]["answered"] == 2  # the sensor's noise is no change
    code, out, _ = watch(demo_bundle, folder, "--labels", LABELS, "--fps", FPS)
    shown = out.splitlines()
    assert (code, len(shown)) == (0, 4)
    assert "0.300 s  red star appeared (" in shown[0]
    assert shown[-1] == "40 frames: 2 answered, 38 unchanged, 0 late; present at the end: blue circle"


def test_a_video_file(watch: Cli, demo_bundle: Path, video: Path) -> None:
    code, out, _ = watch(demo_bundle, video, "--bank", "default", "--json")  # 120 labels, nothing to guess
    assert code == 0
    check_events([json.loads(line) for line in out.splitlines()])


def test_the_options_reach_the_rule(watch: Cli, demo_bundle: Path, folder: Path) -> None:
    common = (demo_bundle, folder, "--labels", LABELS, "--fps", FPS)
    code, out, _ = watch(*common, "--enter-seconds", 60)
    assert (code, len(out.splitlines())) == (0, 1)
    code, out, _ = watch(*common, "--enter-seconds", 0, "--leave-seconds", 0, "--time-constant", 0, "--json")
    events = [json.loads(line) for line in out.splitlines()][:-1]
    assert [event["timestamp"] for event in events] == pytest.approx([0, 2, 2])


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_answered(
    watch: Cli, demo_bundle: Path, tmp_path: Path, folder: Path
) -> None:
    for path in sorted(folder.iterdir())[:8]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "0003.png").write_bytes(b"no picture")
    code, out, err = watch(demo_bundle, tmp_path, "--labels", LABELS, "--fps", FPS)
    assert (code, err.count("\n")) == (1, 1)
    assert "0003.png" in err
    assert "7 frames" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{bundle}", "nowhere.mp4", "--labels", "a"), "no video file or folder of pictures at nowhere.mp4"),
        (("{bundle}", "{folder}", "--labels", "a,b", "--enter", "2"), "enter: expected a probability from 0 to 1"),
        (("{bundle}", "{folder}", "--labels", "a,b", "--leave", "0.9"), "leave 0.9 above enter 0.5"),
        (("{bundle}", "{folder}", "--labels", "a", "--fps", "0"), "a rate of pictures a second above 0"),
        (("{bundle}", "{folder}", "--bank", "none"), "no prompt bank 'none'"),
        (("{bundle}",), "required: source"),
    ],
)
def test_a_wrong_call_is_one_line(
    watch: Cli, demo_bundle: Path, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = watch(*(part.format(bundle=demo_bundle, folder=folder) for part in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_control_c_ends_it_well(demo_bundle: Path, folder: Path, tmp_path: Path) -> None:
    """Thousands of frames, and an interrupt at the first event: the end is told, and the exit code is 0."""
    pictures = sorted(folder.iterdir())[:: 2 * FPS]
    for index in range(6000):
        os.link(pictures[index // 2 % 2], tmp_path / f"{index:05d}.png")
    command = [sys.executable, "-m", "clipedge", "watch", str(demo_bundle), str(tmp_path), "--labels", LABELS]
    with subprocess.Popen(
        [*command, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),  # a job in the background ignores it
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["kind"] == "appeared"
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    end = json.loads(rest.splitlines()[-1])
    assert (process.returncode, err, end["kind"]) == (0, "", "end")
    assert 0 < end["frames"]["seen"] < 6000
