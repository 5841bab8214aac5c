"""A camera loop of one's own: frames from wherever they come, events to whatever acts on them.

    python docs/camera_loop.py BUNDLE SOURCE

SOURCE is a camera's number, a URL, a video file (pip install "clipedge[camera]") or a folder of pictures. This is
`clipedge watch` in a few lines, to start from. A loop around another library's camera differs in one place: it hands
over that library's buffers, ``clipedge.Frame.from_bgr(array)`` for OpenCV's, and the times when they were taken.
"""

from __future__ import annotations

import sys

import clipedge
from clipedge.camera.sources import open_source


def act(event: clipedge.Event) -> None:
    """Called in the stream's own thread, once for each label that appears or leaves."""
    print(f"{event.timestamp:8.2f} s  {event.label} {event.kind}", flush=True)


def main(bundle: str, source: str) -> None:
    clip = clipedge.load(bundle, spinning=False)  # at a camera's pace the engine's threads can sleep between frames
    classifier = clip.classifier(clip.saved_bank("default"))
    rule = clipedge.EventRule.for_bank(classifier.bank, enter=0.6, leave=0.3, enter_seconds=0.2)
    frames, live = open_source(source, fps=10, unreadable=print)
    with clipedge.Stream(classifier, rule, on_event=act) as stream:
        for seconds, frame in frames:
            # copy=False: every frame is new memory. wait: a file's frames all count, a camera's newest one does.
            stream.push(frame, seconds, copy=False, wait=not live)
    print(stream.counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
