"""The camera examples in C and C++ on a rendered video, against the Python Stream on the same frames."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from building import SOURCES, run
from numpy.typing import NDArray

import clipedge
from clipedge.calibration.scenes import render, scene_of
from clipedge.camera.presence import Event, EventRule
from clipedge.camera.stream import Counts, Stream
from clipedge.images.frames import Frame

Pictures = list[NDArray[np.uint8]]
FPS, WIDTH, HEIGHT = 10, 161, 119  # odd: half a chroma sample remains
SHOWN = (("red", "star"), ("blue", "circle"))  # two seconds each
EXAMPLES = SOURCES / "examples"


@pytest.fixture(scope="module")
def sequence() -> Pictures:
    """What a camera with a noisy sensor would see: a scene for two seconds, then another one."""
    rng = np.random.default_rng(0)
    stills = [render(scene_of("test", 3, *pair), WIDTH, HEIGHT).picture for pair in SHOWN]
    return [
        np.asarray((still + rng.normal(0, 2, still.shape)).round().clip(0, 255), np.uint8)
        for still in stills
        for _ in range(2 * FPS)
    ]


@pytest.fixture(scope="module")
def bundle(demo_bundle_fp32: Path, clip_fp32: clipedge.Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model with a bank of two labels, called "two"."""
    folder = tmp_path_factory.mktemp("watched") / "bundle"
    shutil.copytree(demo_bundle_fp32, folder)
    clip_fp32.prompt_bank(["red star", "blue circle"]).save(folder / "prompts" / "two.safetensors")
    return folder


def i420(picture: NDArray[np.uint8]) -> Frame:
    """The frame in full range, with the chroma of every other pixel of every other row."""
    y, cb, cr = np.moveaxis(np.asarray(PIL.Image.fromarray(picture).convert("YCbCr")), 2, 0)
    planes = tuple(np.ascontiguousarray(plane).tobytes() for plane in (y, cb[::2, ::2], cr[::2, ::2]))
    half = (WIDTH + 1) // 2
    return Frame(planes, (WIDTH, half, half), WIDTH, HEIGHT, "i420", "bt601", "full")


def y4m(frames: list[Frame]) -> bytes:
    header = f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg XCOLORRANGE=FULL\n".encode()
    return header + b"".join(b"FRAME\n" + b"".join(map(bytes, frame.planes)) for frame in frames)


def expected_lines(clip: clipedge.Clip, frames: list[Frame], **rule: float) -> tuple[list[str], Counts]:
    """What an example prints of these frames, by the Python Stream."""
    bank = clip.prompt_bank(["red star", "blue circle"])
    events: list[Event] = []
    with Stream(clip.classifier(bank), EventRule.for_bank(bank, **rule), on_event=events.append) as stream:  # type: ignore[arg-type]
        for index, frame in enumerate(frames):
            stream.push(frame, index / FPS, wait=True)
    return [f"{event.since:8.2f} s  {event.label} {event.kind}" for event in events], stream.counts


def test_a_video_in_c_gives_the_events_of_python(
    built: Path, bundle: Path, clip_fp32: clipedge.Clip, sequence: Pictures, tmp_path: Path
) -> None:
    frames = [i420(picture) for picture in sequence]
    (tmp_path / "video.y4m").write_bytes(y4m(frames))
    *lines, last = run([built / "examples" / "camera_loop", bundle, "two", tmp_path / "video.y4m"]).splitlines()
    expected, counts = expected_lines(clip_fp32, frames)
    assert lines == expected
    assert sorted(line.split("  ")[-1] for line in lines) == [
        "blue circle appeared",
        "red star appeared",
        "red star left",
    ]
    assert last == f"40 frames: {counts.unchanged} unchanged, 0 late, {counts.answered} answered"


def test_a_camera_on_standard_input(built: Path, bundle: Path, sequence: Pictures) -> None:
    """Faster than any camera: how many are late depends on the machine, but each frame is one of the three."""
    video = y4m([i420(picture) for picture in sequence])
    command = [built / "examples" / "camera_loop", bundle, "two"]
    done = subprocess.run(command, input=video, capture_output=True, check=True)
    numbers = [int(word) for word in done.stdout.decode().splitlines()[-1].split() if word.isdecimal()]
    assert numbers[0] == 40 == sum(numbers[1:])


def test_raw_frames_in_cpp_give_the_events_of_python(
    built: Path, bundle: Path, clip_fp32: clipedge.Clip, sequence: Pictures
) -> None:
    """Of one still scene, whose first frame is all that the model is asked: none can be late."""
    frames = [Frame.from_array(np.ascontiguousarray(sequence[0][:, :, ::-1]), "bgr8")] * 10
    command = [built / "examples" / "watch", bundle, "two", str(WIDTH), str(HEIGHT), str(FPS)]
    raw = b"".join(bytes(frame.planes[0]) for frame in frames)
    done = subprocess.run(command, input=raw, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == expected_lines(clip_fp32, frames, enter_seconds=0.2)[0]
    assert done.stdout.decode().split("  ")[-1] == "red star appeared\n"


@pytest.mark.parametrize(
    "header", [b"", b"RIFF", *(b"YUV4MPEG2 " + fields + b"\n" for fields in (
        b"W0 H4 F1:1", b"W4 H65536 F1:1", b"W4 H4 F1:0", b"W4 H4 F1:1 C444", b"W4 H4 F1:1 C420p10"))]
)  # fmt: skip
def test_what_is_no_video_is_refused(built: Path, bundle: Path, tmp_path: Path, header: bytes) -> None:
    (tmp_path / "video.y4m").write_bytes(header)
    command = [built / "examples" / "camera_loop", bundle, "two", tmp_path / "video.y4m"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"expected a YUV4MPEG2 video with 4:2:0 chroma and 8 bits" in done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_compiler_warns_of_the_headers_or_the_examples(compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    strict = ["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{SOURCES / 'include'}"]
    run([compiler, "-std=c11", *strict, EXAMPLES / "camera_loop.c"])
    run([compiler, "-std=c++17", *strict, EXAMPLES / "watch.cpp"])
