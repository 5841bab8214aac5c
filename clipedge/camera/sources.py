"""Where frames come from: a folder of pictures, a video file, a camera or a network stream.

A folder needs nothing but this package; the others are read by OpenCV (the extra ``camera``). Timestamps are seconds
from the first frame: of a folder by the rate that the caller gives, of a video file by the positions that the file
gives its frames, of a camera by this machine's clock (perf_counter) when the frame was there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from clipedge.errors import ClipEdgeError, ImageError, MissingDependencyError, UsageError
from clipedge.folders import PICTURE_SUFFIXES, read_folder
from clipedge.images.frames import Frame
from clipedge.images.pixels import open_rgb

__all__ = ["Source", "open_source"]

Frames: TypeAlias = "Generator[tuple[float, Frame], None, None]"


class Source(NamedTuple):
    """``frames`` are (seconds, frame), each in memory of its own. A ``live`` one does not wait for who reads it."""

    frames: Frames
    live: bool


def open_source(name: str, fps: float, unreadable: Callable[[ImageError], object]) -> Source:
    """A device's number, a URL such as rtsp://camera/stream, a video file or a folder of pictures, opened.

    ``fps`` pictures of a folder are a second; those that cannot be read are told to ``unreadable`` and left out. The
    frames of a camera or network stream end in ClipEdgeError when it stops delivering; a file's and a folder's just
    end.

    Raises UsageError if there is no such thing or it cannot be opened, MissingDependencyError without OpenCV where it
    is needed.
    """
    if not 0 < fps < float("inf"):
        raise UsageError(f"expected a rate of pictures a second above 0, found {fps!r}")
    path = Path(name)
    if name.isdecimal():
        return Source(_live_frames(_opened(int(name), f"camera {name}"), f"camera {name}"), live=True)
    if "://" in name:
        shown = _without_password(name)
        return Source(_live_frames(_opened(name, shown), shown), live=True)
    if path.is_dir():
        return Source(_folder_frames(read_folder(path).paths, fps, unreadable), live=False)
    if not path.is_file():
        raise UsageError(
            f"there is no video file or folder of pictures at {name}; a camera is a number such as 0, a network "
            "camera a URL such as rtsp://host/stream"
        )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        raise UsageError(f"{name} is one picture: `clipedge classify` answers to it; name a folder of them, or a video")
    return Source(_file_frames(_opened(name, name), name), live=False)


def _folder_frames(paths: tuple[Path, ...], fps: float, unreadable: Callable[[ImageError], object]) -> Frames:
    for index, path in enumerate(paths):
        try:
            picture = np.asarray(open_rgb(path))
        except ImageError as error:
            unreadable(error)
            continue
        yield index / fps, Frame.from_array(picture, "rgb8")


def _file_frames(capture: Any, name: str) -> Frames:
    cv2 = _opencv()
    first = last = None
    try:
        while True:
            delivered, array = capture.read()
            if not delivered and first is None:
                raise UsageError(f"OpenCV finds no frame in {name}: expected a video; check the file, or convert it")
            if not delivered:
                return
            # Some of OpenCV's readers give the position of this frame, some of the next: differences are right in both.
            position = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            if last is not None and not position > last:
                raise UsageError(
                    f"{name}: expected positions that grow from frame to frame, found {position:g} s after {last:g} s; "
                    "put the video into a container that keeps times, such as mp4"
                )
            first, last = position if first is None else first, position
            yield position - first, Frame.from_bgr(array)
    finally:
        capture.release()


def _live_frames(capture: Any, name: str) -> Frames:
    start: float | None = None
    try:
        while True:
            delivered, array = capture.read()
            if not delivered:
                raise ClipEdgeError(f"{name} delivers no more frames; check it, and start again")
            now = time.perf_counter()
            start = now if start is None else start
            yield now - start, Frame.from_bgr(array)
    finally:
        capture.release()


def _opened(source: int | str, name: str) -> Any:
    capture = _opencv().VideoCapture(source)
    if not capture.isOpened():
        raise UsageError(
            f"OpenCV cannot open {name}: check that it is there, that nothing else uses it, and that it is a video in "
            "a format that OpenCV reads"
        )
    return capture


def _without_password(url: str) -> str:
    """A URL as messages may show it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError(
            "cameras, network streams and video files need the opencv library; install it with "
            'pip install "clipedge[camera]" (a folder of pictures needs none)'
        ) from None
    return cv2
