"""The C interface itself: what is exported, structs of older and newer clients, options, capacities, errors."""

from __future__ import annotations

import ctypes
import re
import threading
from ctypes import byref, c_char_p, c_float, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest
from building import SOURCES, run
from native import UNSUPPORTED, USAGE, Image, Native, NativeError, NativeModel, NewOptions, OldOptions, Options, sized

import clipedge
from clipedge.images.frames import Frame

HEADER = "".join(
    (SOURCES / "include" / "clipedge" / name).read_text(encoding="utf-8") for name in ("clipedge.h", "stream.h")
)


def functions_of_the_header() -> set[str]:
    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)
    return set(re.findall(r"\b(clipedge_\w+)\(", code))


def test_exactly_the_headers_functions_are_exported(built: Path) -> None:
    lines = run(["nm", "--dynamic", "--defined-only", built / "libclipedge.so"]).splitlines()
    symbols = {line.split()[2].split("@")[0] for line in lines if line.split()[1] != "A"}  # A: the version's own
    assert symbols == functions_of_the_header()
    assert len(symbols) > 28


def test_every_status_has_to_be_looked_at() -> None:
    declarations = re.findall(r"CLIPEDGE_API (.*?)\bclipedge_\w+\(", HEADER)
    silent = [one for one in declarations if "CLIPEDGE_MUST_USE clipedge_status" not in one]
    assert sorted(set(map(str.strip, silent))) == ["const char *", "uint32_t", "void"]


def test_the_version_is_that_of_header_and_package(native: Native) -> None:
    numbers = [int(re.search(rf"CLIPEDGE_VERSION_{part} (\d+)", HEADER)[1]) for part in ("MAJOR", "MINOR", "PATCH")]  # type: ignore[index]
    assert native.library.clipedge_version() == numbers[0] << 16 | numbers[1] << 8 | numbers[2]
    assert clipedge.__version__ == ".".join(map(str, numbers))


@pytest.mark.parametrize(
    "options",
    [
        sized(OldOptions),
        sized(Options),
        sized(NewOptions),
        sized(Options, threads=2, sleeping=1, variant=b"fp32"),
        Options(size=ctypes.sizeof(c_size_t)),
    ],
    ids=["older", "same", "newer", "full", "only a size"],
)
def test_options_of_any_client_are_taken(native: Native, demo_bundle_fp32: Path, options: ctypes.Structure) -> None:
    model = native.load(demo_bundle_fp32, options)
    assert model.info().variant == b"fp32"
    model.free()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (Options(), USAGE, "its size is 0"),
        (Options(size=1 << 40), USAGE, "its size is"),
        (sized(NewOptions, later=1), UNSUPPORTED, "does not know"),
        (sized(Options, provider=1), UNSUPPORTED, "built without CUDA"),
        (sized(Options, provider=2, engine_cache=b"/tmp"), UNSUPPORTED, "has no TensorRT"),
        (sized(Options, provider=7), USAGE, "expected a clipedge_provider, found 7"),
        (sized(Options, device=1), USAGE, "device names a GPU"),
        (sized(Options, threads=-1), USAGE, "threads and device of 0 or more"),
        (sized(Options, sleeping=2), USAGE, "sleeping is 0 or 1"),
        (sized(Options, engine_cache=b"/tmp"), USAGE, "engine_cache is TensorRT's"),
        (sized(Options, variant=b"int4"), USAGE, 'no image tower "int4"; there are: fp32'),
    ],
)
def test_what_cannot_be_done_is_refused(
    native: Native, demo_bundle_fp32: Path, options: ctypes.Structure, status: int, message: str
) -> None:
    with pytest.raises(NativeError, match=message) as error:
        native.load(demo_bundle_fp32, options)
    assert error.value.status == status


class OldImage(ctypes.Structure):
    """An image before there were matrix and range."""

    _fields_ = Image._fields_[:6]


def test_images_of_an_older_client_lie_closer_together(native_fp32: NativeModel) -> None:
    frames = [Frame.from_array(np.full((64, 64, 3), value, np.uint8), "rgb8") for value in (10, 200)]
    images = (OldImage * 2)(
        *(
            sized(
                OldImage,
                planes=(c_void_p * 3)(np.frombuffer(frame.planes[0], np.uint8).ctypes.data),
                strides=(c_size_t * 3)(192),
                width=64,
                height=64,
                format=1,
            )
            for frame in frames
        )
    )
    embeds = np.zeros((2, 128), np.float32)
    numbers = embeds.ctypes.data_as(ctypes.POINTER(c_float))
    native_fp32.native.call("encode_images", native_fp32.handle, images, c_size_t(2), numbers, c_size_t(256))
    np.testing.assert_array_equal(embeds, native_fp32.encode(frames))


def test_a_buffer_that_is_too_small_stays_as_it_was(native_fp32: NativeModel) -> None:
    texts, numbers = (c_char_p * 2)(b"a", b"b"), (c_float * 256)()
    for capacity in (0, 255):
        with pytest.raises(NativeError, match=f"embeddings holds {capacity}, expected 2 times 128") as error:
            native_fp32.native.call("encode_texts", native_fp32.handle, texts, c_size_t(2), numbers, c_size_t(capacity))
        assert error.value.status == USAGE
    with pytest.raises(NativeError, match=r"expected .* times 128"):  # a count that would overflow
        native_fp32.native.call("encode_texts", native_fp32.handle, texts, c_size_t(1 << 62), numbers, c_size_t(256))
    assert not any(numbers)
    native_fp32.native.call("encode_texts", native_fp32.handle, None, c_size_t(0), None, c_size_t(0))


def test_null_pointers_are_refused(native: Native, native_fp32: NativeModel) -> None:
    model, numbers = native_fp32.handle, (c_float * 128)()
    calls = [
        ("model_load", None, None, byref(c_void_p())),
        ("model_load", b"/tmp", None, None),
        ("model_describe", None, None),
        ("model_describe", model, None),
        ("encode_images", model, None, c_size_t(1), numbers, c_size_t(128)),
        ("encode_texts", model, (c_char_p * 1)(None), c_size_t(1), numbers, c_size_t(128)),
        ("tokenize", model, None, None, c_size_t(32), None),
        ("tokenize", model, b"a", None, c_size_t(32), None),
        ("bank_open", model, None, byref(c_void_p())),
        ("bank_label", None, c_size_t(0), byref(c_char_p())),
        ("classify", None, numbers, c_size_t(1), numbers, c_size_t(128)),
        ("index_open", model, None, byref(c_void_p())),
        ("index_search", None, numbers, c_size_t(1), None, None, byref(c_size_t())),
        ("index_key", None, c_int64(0), byref(c_char_p())),
    ]
    for name, *arguments in calls:
        with pytest.raises(NativeError, match="is NULL: give one") as error:
            native.call(name, *arguments)
        assert error.value.status == USAGE
    for kind in ("model", "bank", "index"):
        getattr(native.library, f"clipedge_{kind}_free")(None)


def test_a_failed_call_leaves_no_handle(native: Native, tmp_path: Path) -> None:
    handle = c_void_p(1)
    with pytest.raises(NativeError):
        native.call("model_load", str(tmp_path).encode(), None, byref(handle))
    assert handle.value is None


def test_the_last_error_is_the_threads_own(native: Native, tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="is not a bundle"):
        native.load(tmp_path)
    found = []
    thread = threading.Thread(target=lambda: found.append(native.library.clipedge_last_error()))
    thread.start()
    thread.join()
    assert found == [b""]
    assert b"is not a bundle" in native.library.clipedge_last_error()
