"""Builds of the GStreamer plugin, and pipelines played with it: play.cpp says how, this file reads what it prints."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from building import REPOSITORY, SOURCES, cmake, run
from numpy.typing import NDArray

HERE = Path(__file__).parent
ELEMENT = REPOSITORY / "bindings" / "gstreamer"
PACKAGES = ["gstreamer-1.0", "gstreamer-base-1.0", "gstreamer-video-1.0"]


@dataclass(frozen=True)
class Answer:
    """A message of the element: nanoseconds, labels and their probabilities, the best first."""

    timestamp: int
    labels: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Passed:
    """A buffer at the sink: its timestamp, that of the answer attached to it, its stride in GstVideoMeta, and whether
    something else holds its memory."""

    timestamp: int
    answered: int | None
    stride: int | None
    held: bool


@dataclass(frozen=True)
class Heard:
    """What came of a pipeline. ``lines`` is all, in its order."""

    lines: tuple[str, ...]
    answers: tuple[Answer, ...]
    frames: tuple[Passed, ...]
    complaints: tuple[str, ...]  # errors and warnings
    calls: int  # of the model
    seconds: float  # from the first frame to the end of the stream


def parse_answer(text: str) -> Answer:
    """What `gst-launch-1.0 -m` and play.cpp print of a message."""
    timestamp = re.search(r"timestamp=\(guint64\)(\d+)", text)
    labels = re.search(r"labels=(?:\(\w+\))?<([^>]*)>", text)
    scores = re.search(r"scores=(?:\(\w+\))?<([^>]*)>", text)
    assert timestamp and labels and scores, text
    # Both quote a label with a space, and put a backslash before the space.
    found = re.findall(r'"([^"]*)"|([^\s,"]+)', labels[1])
    names = tuple((quoted or plain).replace("\\", "") for quoted, plain in found)
    return Answer(int(timestamp[1]), names, tuple(map(float, re.findall(r"[^\s,]+", scores[1]))))


def passed(line: str) -> Passed:
    _, timestamp, answered, stride, held = line.split()
    numbers = [None if number == "-" else int(number) for number in (answered, stride)]
    return Passed(int(timestamp), *numbers, held == "held")


def heard(output: str) -> Heard:
    lines = output.splitlines()
    answers = [parse_answer(line) for line in lines if line.startswith("answer ")]
    frames = [passed(line) for line in lines if line.startswith("frame ")]
    complaints = [line for line in lines if line.startswith(("error ", "warning "))]
    return Heard(
        lines=tuple(lines),
        answers=tuple(answers),
        frames=tuple(frames),
        complaints=tuple(complaints),
        calls=int(sum(numbers("calls", lines))),
        seconds=sum(numbers("seconds", lines)),
    )


def numbers(name: str, lines: Sequence[str]) -> list[float]:
    return [float(line.split()[1]) for line in lines if line.startswith(f"{name} ")]


def build_plugin(name: str, prefix: Path, *settings: str) -> Path:
    """Build the plugin in build/NAME with the libclipedge that is installed at ``prefix``; returns the folder."""
    return cmake(ELEMENT, name, f"-DCMAKE_PREFIX_PATH={prefix}", *settings)


def compile_player(output: Path, prefix: Path, compiler: str = "g++", flags: Sequence[str] = ()) -> Path:
    """Compile play.cpp, warnings being errors. Raises AssertionError with what the compiler says."""
    libraries = next(prefix.rglob("libclipedge.so")).parent
    strict = ["-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", *flags, f"-I{SOURCES / 'include'}"]
    linked = [f"-L{libraries}", "-lclipedge", f"-Wl,-rpath,{libraries}", "-rdynamic", "-ldl", "-pthread"]
    gstreamer = run(["pkg-config", "--cflags", "--libs", *PACKAGES]).replace(" -I", " -isystem ").split()
    run([compiler, *strict, HERE / "play.cpp", "-o", output, "-Wl,--no-as-needed", *linked, *gstreamer])
    return output


@dataclass(frozen=True)
class Player:
    """The program play with a plugin."""

    program: Path
    plugin: Path
    registry: Path  # of plugins, so that the user's own stays as it is

    def environment(self) -> dict[str, str]:
        return os.environ | {"GST_PLUGIN_PATH": str(self.plugin), "GST_REGISTRY": str(self.registry)}

    def play(
        self, pipeline: str, *options: str, under: Sequence[str] = (), **environment: str
    ) -> tuple[Heard, subprocess.CompletedProcess[str]]:
        """Play a pipeline, by the command ``under`` if given. An error of the pipeline is an exit status of 1."""
        command = [*under, str(self.program), *options, pipeline]
        done = subprocess.run(
            command, env=self.environment() | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode >= 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return heard(done.stdout), done

    def played(self, pipeline: str, *options: str, **environment: str) -> Heard:
        """The same of a pipeline that has to end well. Raises AssertionError otherwise."""
        found, done = self.play(pipeline, *options, **environment)
        assert done.returncode == 0, f"{pipeline}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return found


@dataclass(frozen=True)
class Video:
    """Scenes of one object each, a frame a second."""

    folder: Path  # 00000.png, 00001.png, ...
    raw: Path  # the same as RGB, one after the other
    pictures: NDArray[np.uint8]  # (frames, height, width, 3)
    drawn: tuple[str, ...]  # the label of each
    labels: tuple[str, ...]  # the Python runtime's answer to each

    def pngs(self) -> str:
        """The source of a pipeline."""
        return f'multifilesrc location="{self.folder}/%05d.png" caps="image/png,framerate=(fraction)1/1" ! pngdec'

    def bytes(self) -> str:
        """The same, from the raw file."""
        _, height, width, _ = self.pictures.shape
        layout = f"format=rgb width={width} height={height} framerate=1/1"
        return f'filesrc location="{self.raw}" ! rawvideoparse {layout}'


def properties(values: Mapping[str, object]) -> str:
    """As gst-launch takes them: underscores stand for hyphens."""
    return " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in values.items())
