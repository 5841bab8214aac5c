"""Pictures to test with, and the settings of a model's preprocessing."""

import io
import struct
import zlib

import numpy as np
import PIL.Image

from clipedge.manifest import Preprocessing


def preprocessing(height=224, width=224, resize="shortest-edge", shortest_edge=224, interpolation="bicubic"):
    return Preprocessing(
        height=height,
        width=width,
        resize=resize,
        shortest_edge=shortest_edge,
        interpolation=interpolation,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


def noise(width, height, channels=3, seed=0):
    """Smooth and sharp parts, so that filters, roundings and offsets all show."""
    rng = np.random.default_rng([seed, width, height])
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 100, width))[:, :, None]
    return (ramp + rng.integers(0, 36, (height, width, channels))).astype(np.uint8)


def smooth(width, height):
    """A picture as a camera sees it: next to nothing at the scale of single pixels."""
    return PIL.Image.fromarray(noise(40, 30)).resize((width, height), PIL.Image.Resampling.BICUBIC)


def encode(picture, file_format="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(width, height, bit_depth, colour_type, scanlines):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    )
