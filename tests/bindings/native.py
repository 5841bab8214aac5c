"""libclipedge through ctypes, with no more than its header says: what the tests compare with the Python runtime."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipedge.images.frames import Frame

FORMATS = ("rgb8", "bgr8", "rgba8", "bgra8", "gray8", "nv12", "i420", "yuyv", "uyvy")
MATRICES = ("bt601", "bt709")
RANGES = ("limited", "full")
OK, USAGE, IMAGE, BUNDLE, SPACE, BACKEND, UNSUPPORTED = range(7)


class Options(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("provider", c_int32),
        ("device", c_int32),
        ("threads", c_int32),
        ("sleeping", c_int32),
        ("variant", c_char_p),
        ("engine_cache", c_char_p),
    )


class OldOptions(ctypes.Structure):
    """What a client has that was compiled when there was nothing behind ``device``."""

    _fields_ = Options._fields_[:3]


class NewOptions(ctypes.Structure):
    """What a client of the future may have."""

    _fields_ = (*Options._fields_, ("later", c_int64))


class Image(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("planes", c_void_p * 3),
        ("strides", c_size_t * 3),
        ("width", c_int32),
        ("height", c_int32),
        ("format", c_int32),
        ("matrix", c_int32),
        ("range", c_int32),
        ("reserved", c_int32),
    )


class ModelInfo(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        *((name, c_int32) for name in ("embedding_dim", "image_width", "image_height", "context_length")),
        *((name, c_char_p) for name in ("variant", "space_id", "source_model", "engine")),
    )


class BankInfo(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        *((n, c_int32) for n in ("embedding_dim", "labels", "negatives", "sigmoid", "multi_label", "reserved")),
        ("rule_variant", c_char_p),
        ("space_id", c_char_p),
    )


class IndexInfo(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("embedding_dim", c_int32),
        ("reserved", c_int32),
        ("entries", c_int64),
        ("space_id", c_char_p),
    )


class NativeError(Exception):
    """A status other than CLIPEDGE_OK, with the thread's last error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Native:
    """The library at ``path``. Calls raise NativeError."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.clipedge_last_error.restype = c_char_p
        self.library.clipedge_version.restype = c_uint32

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, f"clipedge_{name}")(*arguments)
        if status != OK:
            raise NativeError(status, self.library.clipedge_last_error().decode())

    def load(self, folder: Path | str, options: ctypes.Structure | None = None) -> NativeModel:
        handle = c_void_p()
        self.call("model_load", str(folder).encode(), None if options is None else byref(options), byref(handle))
        return NativeModel(self, handle)


def sized(struct: type[ctypes.Structure], **values: Any) -> Any:
    """A struct whose ``size`` is its own."""
    return struct(size=ctypes.sizeof(struct), **values)


def image_of(frame: Frame) -> Image:
    """The frame as the header has it. Keep the frame as long as the image."""
    planes = [np.frombuffer(plane, np.uint8).ctypes.data for plane in frame.planes]
    return sized(
        Image,
        planes=(c_void_p * 3)(*planes),
        strides=(c_size_t * 3)(*frame.strides),
        width=frame.width,
        height=frame.height,
        format=FORMATS.index(frame.format) + 1,
        matrix=MATRICES.index(frame.color_matrix) + 1,
        range=RANGES.index(frame.color_range) + 1,
    )


def _floats(array: NDArray[np.float32]) -> Any:
    return array.ctypes.data_as(POINTER(c_float))


class NativeModel:
    def __init__(self, native: Native, handle: c_void_p) -> None:
        self.native, self.handle = native, handle

    def info(self) -> ModelInfo:
        info = sized(ModelInfo)
        self.native.call("model_describe", self.handle, byref(info))
        return info  # type: ignore[no-any-return]

    def encode(self, frames: Sequence[Frame]) -> NDArray[np.float32]:
        images = (Image * len(frames))(*map(image_of, frames))
        embeds = np.zeros((len(frames), self.info().embedding_dim), np.float32)
        size = c_size_t(embeds.size)
        self.native.call("encode_images", self.handle, images, c_size_t(len(frames)), _floats(embeds), size)
        return embeds

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        pointers = (c_char_p * len(texts))(*(text.encode() for text in texts))
        embeds = np.zeros((len(texts), self.info().embedding_dim), np.float32)
        size = c_size_t(embeds.size)
        self.native.call("encode_texts", self.handle, pointers, c_size_t(len(texts)), _floats(embeds), size)
        return embeds

    def tokenize(self, text: bytes) -> tuple[list[int], int]:
        """Token ids, and how many were lost."""
        length, lost = self.info().context_length, c_int64()
        ids = (c_int64 * length)()
        self.native.call("tokenize", self.handle, text, ids, c_size_t(length), byref(lost))
        return list(ids), lost.value

    def bank(self, name: str) -> NativeBank:
        handle = c_void_p()
        self.native.call("bank_open", self.handle, name.encode(), byref(handle))
        return NativeBank(self.native, handle)

    def bank_at(self, path: Path) -> NativeBank:
        handle = c_void_p()
        self.native.call("bank_load", self.handle, str(path).encode(), byref(handle))
        return NativeBank(self.native, handle)

    def index(self, folder: Path) -> NativeIndex:
        handle = c_void_p()
        self.native.call("index_open", self.handle, str(folder).encode(), byref(handle))
        return NativeIndex(self.native, handle)

    def free(self) -> None:
        self.native.library.clipedge_model_free(self.handle)


class NativeBank:
    def __init__(self, native: Native, handle: c_void_p) -> None:
        self.native, self.handle = native, handle

    def info(self) -> BankInfo:
        info = sized(BankInfo)
        self.native.call("bank_describe", self.handle, byref(info))
        return info  # type: ignore[no-any-return]

    def labels(self) -> tuple[str, ...]:
        found = []
        for number in range(self.info().labels):
            label = c_char_p()
            self.native.call("bank_label", self.handle, c_size_t(number), byref(label))
            found.append((label.value or b"").decode())
        return tuple(found)

    def classify(self, embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        result = np.zeros((len(embeds), self.info().labels), np.float32)
        size = c_size_t(result.size)
        self.native.call("classify", self.handle, _floats(embeds), c_size_t(len(embeds)), _floats(result), size)
        return result

    def decide(self, embeds: NDArray[np.float32], several: bool) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        result = np.zeros((len(embeds), self.info().labels), np.float32)
        accepted = np.zeros(result.shape, np.uint8)
        rows, flags = c_size_t(len(embeds)), accepted.ctypes.data_as(POINTER(c_uint8))
        where = (_floats(embeds), rows, c_int32(several), flags, _floats(result), c_size_t(result.size))
        self.native.call("decide", self.handle, *where)
        return accepted.astype(bool), result


class NativeIndex:
    def __init__(self, native: Native, handle: c_void_p) -> None:
        self.native, self.handle = native, handle

    def __len__(self) -> int:
        info = sized(IndexInfo)
        self.native.call("index_describe", self.handle, byref(info))
        return int(info.entries)

    def search(self, query: NDArray[np.float32], k: int) -> list[tuple[bytes, float, bytes]]:
        """(key, score, metadata as JSON) of each hit."""
        rows, scores, found = (c_int64 * k)(), (c_float * k)(), c_size_t()
        self.native.call("index_search", self.handle, _floats(query), c_size_t(k), rows, scores, byref(found))
        return [(self._text("key", rows[i]), scores[i], self._text("metadata", rows[i])) for i in range(found.value)]

    def _text(self, what: str, row: int) -> bytes:
        text = c_char_p()
        self.native.call(f"index_{what}", self.handle, c_int64(row), byref(text))
        return text.value or b""
