"""From sensor_msgs/Image to a frame, and from probabilities to what vision_msgs says of them. Needs no ROS.

Encodings are those of sensor_msgs/image_encodings.hpp. Its 16-bit, floating-point, Bayer, NV21 and NV24 images are
refused by name: a frame has none of these layouts, and to guess a range or a pattern would be wrong quietly.
``is_bigendian`` orders the bytes of a number and says nothing about numbers of one byte, which all of these have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from clipedge import Frame, ImageError, UsageError
from clipedge.images.frames import PixelFormat

__all__ = ["ENCODINGS", "Image", "class_map", "frame_of", "hypotheses", "seconds"]

# sensor_msgs' encoding -> ours. 8UC3 is OpenCV's type, and OpenCV's order is BGR; 8UC1 is grey in any order.
ENCODINGS: dict[str, PixelFormat] = {
    "rgb8": "rgb8",
    "bgr8": "bgr8",
    "8UC3": "bgr8",
    "rgba8": "rgba8",
    "bgra8": "bgra8",
    "8UC4": "bgra8",
    "mono8": "gray8",
    "8UC1": "gray8",
    "uyvy": "uyvy",
    "yuv422": "uyvy",
    "yuyv": "yuyv",
    "yuv422_yuy2": "yuyv",
    "nv12": "nv12",
}
MOST_LABELS = 0xFFFF  # VisionClass.class_id is a uint16, whose largest number stands for "unlabeled"


class _Stamp(Protocol):
    sec: int
    nanosec: int


class Image(Protocol):
    """What is read of a sensor_msgs/Image, whoever deserialised it."""

    header: Any
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


def frame_of(image: Image) -> Frame:
    """The image as a frame over the message's own memory; nothing is copied. Its timestamp is the header's stamp.

    ``data`` is any buffer of bytes: rclpy's array, numpy's, bytes. Of nv12, ``step`` bytes are a row of both planes,
    and ``height`` is the picture's. Raises ImageError for another encoding and for data that do not hold the picture.
    """
    format = ENCODINGS.get(image.encoding)
    if format is None:
        raise ImageError(
            f"expected an image in one of the encodings {', '.join(ENCODINGS)}, found {image.encoding!r}; "
            "convert it in the camera's driver or with image_proc"
        )
    data = memoryview(image.data)
    planes, strides = (data,), (image.step,)
    if format == "nv12":
        luma = image.step * image.height
        planes, strides = (data[:luma], data[luma:]), (image.step, image.step)
    return Frame(planes, strides, image.width, image.height, format, timestamp=seconds(image.header.stamp))


def seconds(stamp: _Stamp) -> float:
    """A builtin_interfaces/Time in seconds, to the quarter of a microsecond that float64 keeps of today's."""
    return float(stamp.sec + stamp.nanosec * 1e-9)


def hypotheses(probabilities: Sequence[float], least: float) -> list[tuple[str, float]]:
    """(class_id, score) of the labels with at least this probability, the best first, for Classification.results.

    vision_msgs wants an identifier there, and the names in LabelInfo: it is the label's place, as text.
    """
    best = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    return [(str(index), float(probabilities[index])) for index in best if probabilities[index] >= least]


def class_map(labels: Sequence[str]) -> list[tuple[int, str]]:
    """(class_id, class_name) of all labels, for LabelInfo.class_map.

    Raises UsageError for more labels than a uint16 counts.
    """
    if len(labels) > MOST_LABELS:
        raise UsageError(f"LabelInfo holds at most {MOST_LABELS} labels, found {len(labels)}; make a smaller bank")
    return list(enumerate(labels))
