"""A live GStreamer pipeline with and without the element clipedge: what arrives, what is answered, how long it takes.

    python benchmarks/gstreamer_element.py [--frames 300] [--bundle DIR]

The source makes 30 frames a second of 1280 x 720 in NV12, by the clock, as a camera does; the sink takes them when they
come. A row is a pipeline: without the element, with a bundle at the default interval and at every frame, and with a
model that takes a second longer for each frame. Seconds are those from the first frame at the sink to the end of the
stream, which waits for the last answer. tests/bindings/gstreamer/play.cpp plays the pipelines; plugin and library are
built with `make gstreamer`. Without --bundle the demonstration model is exported to INT8. Writes results/gstreamer.md
and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from layout import REPOSITORY, RESULTS
from machine import describe_machine

sys.path.insert(0, str(REPOSITORY / "tests" / "bindings"))
sys.path.insert(0, str(REPOSITORY / "tests" / "bindings" / "gstreamer"))

from playing import Player, compile_player

BUILD = REPOSITORY / "build"
LATE = 1000  # milliseconds


@dataclass(frozen=True)
class Row:
    """A pipeline: frames at the sink, answers, and seconds."""

    pipeline: str
    frames: int
    answers: int
    seconds: float


def measure(player: Player, title: str, element: str, frames: int, *options: str) -> Row:
    """Play the pipeline once. Raises AssertionError where it does not end well."""
    source = f"videotestsrc is-live=true num-buffers={frames} pattern=ball"
    caps = "video/x-raw,format=NV12,width=1280,height=720,framerate=30/1"
    heard = player.played(f"{source} ! {caps} ! {element} ! fakesink name=sink", *options)
    return Row(title, len(heard.frames), len(heard.answers), heard.seconds)


def rows_of(player: Player, bundle: Path, frames: int) -> list[Row]:
    """All pipelines."""
    element = f'clipedge bundle="{bundle}"'
    return [
        measure(player, "without the element", "identity", frames),
        measure(player, "at most 10 frames a second", element, frames),
        measure(player, "every frame", f"{element} interval=0", frames),
        measure(player, "every frame, model a second slower", f"{element} interval=0", frames, "--late", str(LATE)),
    ]


def markdown(rows: list[Row], machine: dict[str, object], frames: int) -> str:
    """The page."""
    return "\n".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores; {machine['date']}; {frames} frames of 1280 x 720, NV12, "
            "30 a second.",
            "",
            "| pipeline | frames at the sink | answers | seconds |",
            "|---|---:|---:|---:|",
            *(f"| {row.pipeline} | {row.frames} | {row.answers} | {row.seconds:.2f} |" for row in rows),
            "",
        ]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--bundle", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = arguments.bundle or folder / "int8"
        if arguments.bundle is None:
            from clipedge.export import export

            export(None, bundle, precision="int8")
        program = compile_player(folder / "play", BUILD / "gstreamer-prefix")
        rows = rows_of(Player(program, BUILD / "gstreamer", folder / "registry"), bundle, arguments.frames)
    machine = describe_machine()
    document = {"machine": machine, "frames": arguments.frames, "rows": [asdict(row) for row in rows]}
    page = markdown(rows, machine, arguments.frames)
    (RESULTS / "gstreamer.md").write_text(page, encoding="utf-8")
    (RESULTS / "gstreamer.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
