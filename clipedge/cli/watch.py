"""clipedge watch BUNDLE SOURCE --labels a,b

Prints a line for every event as it happens, and one at the end with what became of the frames; with --json each line is
one JSON document, since a camera's stream has no end at which a single one could be printed. Ctrl-C ends it with exit
code 0, as the end of a file does. A camera that stops delivering is an error, exit code 1.
"""

from __future__ import annotations

import argparse
from contextlib import closing, suppress
from dataclasses import asdict

from clipedge.backends import engine_facts
from clipedge.camera.presence import Event, EventRule
from clipedge.camera.sources import open_source
from clipedge.camera.stream import Stream
from clipedge.cli import fail, print_json_line
from clipedge.cli.options import (
    add_bundle_argument,
    add_engine_options,
    add_label_options,
    add_picture_options,
    open_clip,
    prompt_bank,
)
from clipedge.errors import ImageError
from clipedge.model import Clip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle_argument(parser)
    parser.add_argument(
        "source",
        help="a camera's number (0), a URL (rtsp://host/stream) or a video file, which need the extra camera, or a "
        "folder of pictures",
    )
    add_label_options(parser)
    parser.add_argument("--bank", help="name of a prompt bank in the bundle, or its file (default: the only one)")
    parser.add_argument(
        "--enter", type=float, metavar="P", help="a label appears at this probability (default: the bank's, or 0.5)"
    )
    parser.add_argument("--leave", type=float, metavar="P", help="and leaves below this one (default: 0.7 of --enter)")
    for option, seconds, shown in (
        ("--enter-seconds", EventRule.enter_seconds, "it has to be at --enter for so long"),
        ("--leave-seconds", EventRule.leave_seconds, "and below --leave for so long"),
        ("--time-constant", EventRule.time_constant, "probabilities are smoothed over about so long; 0: not at all"),
    ):
        parser.add_argument(option, type=float, metavar="S", default=seconds, help=f"{shown} (default: {seconds:g})")
    parser.add_argument("--fps", type=float, default=1.0, help="pictures of a folder that are a second (default: 1)")
    add_picture_options(parser)
    add_engine_options(parser)


def run(arguments: argparse.Namespace) -> int:
    unreadable: list[ImageError] = []

    def skip(error: ImageError) -> None:
        unreadable.append(error)
        fail(str(error), 1)  # the other pictures are still worth an answer

    source = open_source(arguments.source, arguments.fps, skip)
    clip = open_clip(arguments, arguments.bundle)
    classifier = clip.classifier(prompt_bank(clip, arguments))
    rule = EventRule.for_bank(
        classifier.bank,
        enter=arguments.enter,
        leave=arguments.leave,
        enter_seconds=arguments.enter_seconds,
        leave_seconds=arguments.leave_seconds,
        time_constant=arguments.time_constant,
    )
    stream = Stream(classifier, rule, on_event=_print_event_json if arguments.json else _print_event)
    try:
        with suppress(KeyboardInterrupt), closing(source.frames), stream:  # Ctrl-C is how a camera's stream ends
            for timestamp, frame in source.frames:
                stream.push(frame, timestamp, copy=False, wait=not source.live)
    finally:
        _print_end(stream, rule, clip, arguments.json)
    return 1 if unreadable else 0


def _print_event(event: Event) -> None:
    print(f"{event.timestamp:9.3f} s  {event.label} {event.kind} ({event.probability:.3f})", flush=True)


def _print_event_json(event: Event) -> None:
    print_json_line(asdict(event))


def _print_end(stream: Stream, rule: EventRule, clip: Clip, as_json: bool) -> None:
    counts, presence = stream.counts, stream.presence
    if not counts.seen:
        return
    there = [] if presence is None else [rule.labels[index] for index in presence.present.nonzero()[0]]
    if as_json:
        facts = {"frames": asdict(counts), "present": there, "engine": engine_facts(clip.image_engine)}
        print_json_line({"kind": "end", **facts})
        return
    print(
        f"{counts.seen} frames: {counts.answered} answered, {counts.unchanged} unchanged, {counts.late} late; "
        f"present at the end: {', '.join(there) or 'no label'}",
        flush=True,
    )
