"""Camera frames: planes of bytes as a driver delivers them, and their exact conversion to RGB.

A bare array is taken for RGB everywhere in ClipEdge. **OpenCV's arrays are BGR**: hand them over as
``Frame.from_bgr(array)``, or every red apple becomes a blue one.

Conversion from YUV (ITU-R BT.601 and BT.709). With ``Kr, Kb = 0.299, 0.114`` (BT.601) or ``0.2126, 0.0722``
(BT.709), ``Kg = 1 - Kr - Kb`` and the byte values ``Y, Cb, Cr``::

    limited range:  y = (Y - 16) 255/219   b = (Cb - 128) 255/224   r = (Cr - 128) 255/224
    full range:     y = Y                  b = Cb - 128             r = Cr - 128

    R = y + 2 (1 - Kr) r
    G = y - 2 Kb (1 - Kb) / Kg b - 2 Kr (1 - Kr) / Kg r
    B = y + 2 (1 - Kb) b

rounded to the nearest integer and clipped to [0, 255]. Subsampled chroma is repeated (nearest neighbour), not
interpolated: a CLIP model sees the frame scaled down several times, where the difference disappears.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from clipedge.errors import ImageError

__all__ = ["ColorMatrix", "ColorRange", "Frame", "PixelFormat", "channel_views", "to_rgb"]

PixelFormat = Literal["rgb8", "bgr8", "rgba8", "bgra8", "gray8", "nv12", "i420", "yuyv", "uyvy"]
ColorMatrix = Literal["bt601", "bt709"]
ColorRange = Literal["full", "limited"]
Pixels = NDArray[np.uint8]

_KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
_FRACTION_BITS = 20  # of the fixed-point tables; sums stay below 600 * 2**20 < 2**31
_BAND_ROWS = 64  # rows converted at a time: even, and few enough that the temporaries stay in the cache


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture in a camera's memory layout. Nothing is copied: keep the memory unchanged until it is used.

    ``planes`` are C-contiguous byte buffers (bytes, bytearray, memoryview, uint8 array) and ``strides`` the
    bytes from one row to the next in each, which may be more than the row needs. Per format, with
    w2 = ceil(width / 2) and h2 = ceil(height / 2)::

        rgb8 bgr8     one plane, height rows of 3 width bytes
        rgba8 bgra8   one plane, height rows of 4 width bytes; the fourth byte is padding and ignored
        gray8         one plane, height rows of width bytes
        yuyv uyvy     one plane, height rows of 4 w2 bytes (Y U Y V or U Y V Y)
        nv12          Y: height rows of width bytes; UV interleaved: h2 rows of 2 w2 bytes
        i420          Y: height rows of width bytes; U: h2 rows of w2 bytes; V: the same

    ``color_matrix`` and ``color_range`` matter for YUV only. The defaults are those of webcams and of OpenCV's
    cvtColor; HD video is mostly "bt709", decoded JPEG is "bt601" and "full". ``timestamp`` is the camera's own
    clock in seconds, carried along for the caller.

    Raises ImageError when a plane is missing or too small, or a stride is shorter than its row.
    """

    planes: tuple[bytes | bytearray | memoryview | Pixels, ...]
    strides: tuple[int, ...]
    width: int
    height: int
    format: PixelFormat
    color_matrix: ColorMatrix = "bt601"
    color_range: ColorRange = "limited"
    timestamp: float | None = None

    def __post_init__(self) -> None:
        _check_choice("format", self.format, get_args(PixelFormat))
        _check_choice("color_matrix", self.color_matrix, get_args(ColorMatrix))
        _check_choice("color_range", self.color_range, get_args(ColorRange))
        if self.width < 1 or self.height < 1:
            raise ImageError(f"a frame needs a width and height of at least 1, found {self.width} x {self.height}")
        _plane_views(self)

    @classmethod
    def from_bgr(cls, array: Pixels, timestamp: float | None = None) -> Frame:
        """An OpenCV picture: uint8 (height, width, 3), blue first."""
        return cls.from_array(array, "bgr8", timestamp=timestamp)

    @classmethod
    def from_array(
        cls,
        array: Pixels,
        format: PixelFormat,
        color_matrix: ColorMatrix = "bt601",
        color_range: ColorRange = "limited",
        timestamp: float | None = None,
    ) -> Frame:
        """A frame held in one uint8 array of the shape usual in OpenCV, GStreamer and V4L2 bindings.

        rgb8, bgr8: (H, W, 3). rgba8, bgra8: (H, W, 4). gray8: (H, W). yuyv, uyvy: (H, W, 2), W even.
        nv12, i420: (H * 3 / 2, W), H and W even. A view with padded rows is copied; pass its memory to
        ``Frame(...)`` with strides to avoid that. Raises ImageError for another shape or dtype.
        """
        _check_choice("format", format, get_args(PixelFormat))
        if not _fits(array, format):
            found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ImageError(
                f"a {format} frame is a uint8 array of shape {_ARRAY_SHAPES[format]}, found {found}; "
                "convert the array, or name its real format"
            )
        planar = format in ("nv12", "i420")
        height, width = array.shape[0] * 2 // 3 if planar else array.shape[0], array.shape[1]
        memory = np.ascontiguousarray(array).reshape(-1)
        layout = _layout(format, width, height)
        ends = np.cumsum([rows * row_bytes for rows, row_bytes in layout])
        return cls(
            tuple(np.split(memory, ends[:-1])),
            tuple(row_bytes for _, row_bytes in layout),
            width,
            height,
            format,
            color_matrix,
            color_range,
            timestamp,
        )


_ARRAY_SHAPES: dict[PixelFormat, str] = {
    "rgb8": "(H, W, 3)",
    "bgr8": "(H, W, 3)",
    "rgba8": "(H, W, 4)",
    "bgra8": "(H, W, 4)",
    "gray8": "(H, W)",
    "yuyv": "(H, W, 2) with W even",
    "uyvy": "(H, W, 2) with W even",
    "nv12": "(H * 3 / 2, W) with H and W even",
    "i420": "(H * 3 / 2, W) with H and W even",
}


def to_rgb(frame: Frame) -> Pixels:
    """The frame as uint8 RGB of shape (height, width, 3), by the formulas at the top of this file."""
    planes = _plane_views(frame)
    if frame.format == "gray8":
        return np.repeat(planes[0][:, :, None], 3, axis=2)
    if frame.format in ("rgb8", "bgr8", "rgba8", "bgra8"):
        pixels = planes[0].reshape(frame.height, frame.width, -1)
        return np.ascontiguousarray(pixels[:, :, 2::-1] if frame.format[0] == "b" else pixels[:, :, :3])
    return _yuv_to_rgb(frame, planes)


def channel_views(frame: Frame) -> tuple[Pixels, ...]:
    """Views of each channel, (rows, columns), nothing converted and nothing copied.

    Grey; the three colours in the frame's own order; or Y and the subsampled Cb and Cr.
    """
    planes = _plane_views(frame)
    if frame.format == "gray8":
        return (planes[0],)
    if frame.format in ("rgb8", "bgr8", "rgba8", "bgra8"):
        pixels = planes[0].reshape(frame.height, frame.width, -1)
        return pixels[:, :, 0], pixels[:, :, 1], pixels[:, :, 2]
    return _yuv_channels(frame, planes)


def _yuv_to_rgb(frame: Frame, planes: list[Pixels]) -> Pixels:
    luma, cb, cr = _yuv_channels(frame, planes)
    rows_per_chroma = 2 if frame.format in ("nv12", "i420") else 1
    tables = _yuv_tables(frame.color_matrix, frame.color_range)
    rgb = np.empty((frame.height, frame.width, 3), np.uint8)
    for top in range(0, frame.height, _BAND_ROWS):
        out = rgb[top : top + _BAND_ROWS]
        chroma = slice(top // rows_per_chroma, (top + _BAND_ROWS) // rows_per_chroma)
        cb_band, cr_band = cb[chroma], cr[chroma]
        y = tables.luma[luma[top : top + _BAND_ROWS]]
        offsets = (
            tables.cr_to_red[cr_band],
            tables.cb_to_green[cb_band] + tables.cr_to_green[cr_band],
            tables.cb_to_blue[cb_band],
        )
        for channel, offset in enumerate(offsets):
            nearest = offset.repeat(rows_per_chroma, axis=0).repeat(2, axis=1)
            value = (y + nearest[: out.shape[0], : frame.width]) >> _FRACTION_BITS
            out[:, :, channel] = value.clip(0, 255)
    return rgb


def _yuv_channels(frame: Frame, planes: list[Pixels]) -> tuple[Pixels, Pixels, Pixels]:
    """Views of Y (height, width) and of the subsampled Cb and Cr."""
    if frame.format == "nv12":
        return planes[0], planes[1][:, 0::2], planes[1][:, 1::2]
    if frame.format == "i420":
        return planes[0], planes[1], planes[2]
    packed = planes[0]
    if frame.format == "yuyv":
        return packed[:, 0::2][:, : frame.width], packed[:, 1::4], packed[:, 3::4]
    return packed[:, 1::2][:, : frame.width], packed[:, 0::4], packed[:, 2::4]


class _YuvTables(NamedTuple):
    """What each byte value adds to a channel, in units of 2**-20; ``luma`` includes the half for rounding."""

    luma: NDArray[np.int32]
    cr_to_red: NDArray[np.int32]
    cb_to_green: NDArray[np.int32]
    cr_to_green: NDArray[np.int32]
    cb_to_blue: NDArray[np.int32]


@lru_cache(maxsize=4)
def _yuv_tables(color_matrix: ColorMatrix, color_range: ColorRange) -> _YuvTables:
    kr, kb = _KR_KB[color_matrix]
    kg = 1 - kr - kb
    byte = np.arange(256, dtype=np.float64)
    luma, chroma = byte, byte - 128
    if color_range == "limited":
        luma, chroma = (byte - 16) * (255 / 219), chroma * (255 / 224)

    def fixed(values: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.rint(values * (1 << _FRACTION_BITS)).astype(np.int32)

    return _YuvTables(
        luma=fixed(luma + 0.5),
        cr_to_red=fixed(2 * (1 - kr) * chroma),
        cb_to_green=fixed(-2 * kb * (1 - kb) / kg * chroma),
        cr_to_green=fixed(-2 * kr * (1 - kr) / kg * chroma),
        cb_to_blue=fixed(2 * (1 - kb) * chroma),
    )


def _layout(format: PixelFormat, width: int, height: int) -> list[tuple[int, int]]:
    """(rows, bytes that a row needs) of each plane."""
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    if format == "nv12":
        return [(height, width), (half_height, 2 * half_width)]
    if format == "i420":
        return [(height, width), (half_height, half_width), (half_height, half_width)]
    if format in ("yuyv", "uyvy"):
        return [(height, 4 * half_width)]
    return [(height, width * {"gray8": 1, "rgb8": 3, "bgr8": 3}.get(format, 4))]


def _plane_views(frame: Frame) -> list[Pixels]:
    """The planes as (rows, row bytes) arrays over the caller's memory, every size checked."""
    layout = _layout(frame.format, frame.width, frame.height)
    size = f"a {frame.format} frame of {frame.width} x {frame.height}"
    if len(frame.planes) != len(layout) or len(frame.strides) != len(layout):
        raise ImageError(
            f"{size} has {len(layout)} plane(s) with a stride each, found {len(frame.planes)} plane(s) and "
            f"{len(frame.strides)} stride(s)"
        )
    views = []
    for number, ((rows, row_bytes), stride) in enumerate(zip(layout, frame.strides, strict=True)):
        memory = _bytes_of(frame.planes[number], number)
        if stride < row_bytes:
            raise ImageError(
                f"{size}: plane {number} needs {row_bytes} bytes per row, found a stride of {stride}; "
                "a stride counts bytes, not pixels"
            )
        needed = (rows - 1) * stride + row_bytes
        if memory.size < needed:
            raise ImageError(
                f"{size}: plane {number} needs {needed} bytes ({rows} rows, stride {stride}), found "
                f"{memory.size}; check the width, the height, the stride and the format"
            )
        views.append(np.ndarray((rows, row_bytes), np.uint8, memory.data, strides=(stride, 1)))
    return views


def _bytes_of(plane: bytes | bytearray | memoryview | Pixels, number: int) -> Pixels:
    if isinstance(plane, np.ndarray) and plane.dtype != np.uint8:
        raise ImageError(f"plane {number} of a frame must hold uint8, found {plane.dtype}")
    try:
        return np.frombuffer(plane, np.uint8)
    except (ValueError, TypeError, BufferError):
        raise ImageError(
            f"plane {number} of a frame must be a contiguous byte buffer, found "
            f"{type(plane).__name__}; np.ascontiguousarray makes one"
        ) from None


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ImageError(f"a frame's {name} is one of {', '.join(choices)}; found {value!r}")


def _fits(array: Pixels, format: PixelFormat) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.size == 0:
        return False
    if format in ("nv12", "i420"):
        return array.ndim == 2 and array.shape[0] % 3 == 0 and array.shape[1] % 2 == 0
    if format == "gray8":
        return array.ndim == 2
    channels = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "yuyv": 2, "uyvy": 2}[format]
    even = format not in ("yuyv", "uyvy") or array.shape[1] % 2 == 0
    return array.ndim == 3 and array.shape[2] == channels and even
