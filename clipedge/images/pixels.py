"""Bytes, files, arrays and camera frames -> the uint8 pixels that an image tower takes.

The pixels equal, bit for bit, what transformers' Pillow-based CLIP image processor computes before it rescales
them to [0, 1] (``CLIPImageProcessorPil``), for a picture that ``PIL.Image.open`` read. What that leaves open
is decided here:

- EXIF orientation is applied, to files as well as to PIL images, as ``transformers.image_utils.load_image`` does.
- Transparency (RGBA, LA, a palette's or a PNG's transparent colour) is laid over white.
- 16-bit grey is scaled to 8 bits by taking the high byte, as Pillow does with 16-bit colour; Pillow's own
  conversion would clip everything above 255 to white. 32-bit float pictures have no range to scale from: refused.
- Of an animation or a multi-page file, the first picture.
- **A bare array is RGB**, uint8, (height, width, 3). OpenCV's arrays are BGR: pass ``Frame.from_bgr(array)``.
  Grey, RGBA and YUV arrays: ``Frame.from_array(array, "gray8")`` and so on. Float arrays are refused, because
  their range cannot be told from their values.

That is the mode ``"exact"``. The mode ``"fast"`` is for large pictures: JPEG files are decoded at a half, a quarter
or an eighth of their size where that leaves 1.5 times the pixels that the model's resize needs (a PIL image is not:
its decoder is the caller's), other large pictures are averaged by whole factors before that resize, and only what
the crop keeps is computed. Both modes have the same geometry. ``benchmarks/preprocessing.py`` measures what fast
gains and how far it moves an embedding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal, TypeAlias, get_args

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from clipedge.errors import ImageError, UsageError
from clipedge.images.drafts import Source, shrink, whole
from clipedge.images.frames import Frame, to_rgb
from clipedge.images.resize import as_picture, fit_exactly, fit_fast, plan
from clipedge.manifest import Preprocessing
from clipedge.parallel import cores, parallel_map

__all__ = ["MAX_PIXELS", "ImageInput", "Images", "Mode", "as_list", "check_mode", "open_rgb", "preprocess"]

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | PIL.Image.Image | NDArray[np.uint8] | Frame"
Images: TypeAlias = "ImageInput | Iterable[ImageInput]"
Mode = Literal["exact", "fast"]

# A few kilobytes can decode to gigabytes. This is where Pillow itself gives up (DecompressionBombError): 716 MB
# as Pillow holds it, and still more than the 108 megapixels of a phone.
MAX_PIXELS = 178_956_970

# Pillow loads a picture at its first use, which two threads must not do at once; a list may hold one picture twice.
_CALLERS_PICTURE = Lock()

_ORIENTATION = 0x0112  # the EXIF tag


def as_list(images: Images) -> list[ImageInput]:
    """One picture or many -> a list of pictures.

    A path, bytes, a PIL image, a Frame or an (H, W, 3) array is one picture; an (N, H, W, 3) array is N of them,
    and so is any other iterable. Raises ImageError for anything else. Nothing is read yet.
    """
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (str, os.PathLike, bytes, PIL.Image.Image, Frame)):
        return [images]
    if isinstance(images, Iterable):
        return list(images)
    raise _not_an_image(images, "the image")


def open_rgb(image: ImageInput) -> PIL.Image.Image:
    """Decode one picture, upright, in mode RGB. The rules are at the top of this file.

    A PIL image that is RGB and upright already is returned as it is, not copied.
    Raises ImageError when it is missing, damaged, cut off, too large or no picture.
    """
    return as_picture(_open(image, "the image").pixels)


def check_mode(mode: str) -> None:
    """Raises UsageError unless ``mode`` is one of ``Mode``."""
    if mode not in get_args(Mode):
        raise UsageError(f'unknown preprocessing {mode!r}; there are "exact" (bit for bit the model\'s own) and "fast"')


def preprocess(
    images: Sequence[ImageInput], preprocessing: Preprocessing, mode: Mode = "exact", threads: int | None = None
) -> NDArray[np.uint8]:
    """Decode, resize and crop. Returns uint8 RGB of shape (N, height, width, 3), C-contiguous.

    Method: the shorter side is scaled to ``shortest_edge`` and the longer one to ``int(shortest_edge * long /
    short)`` pixels with Pillow's filter; then ``height`` x ``width`` is cut out at ``(size - crop) / 2``, rounded as
    ``crop_offset`` says, black where the picture is smaller than that. ``resize="squash"`` scales both sides and cuts
    nothing.

    At most ``threads`` threads work, None for one per core: on as many pictures at a time, and on the strips of a
    large one. Raises ImageError naming the picture, its path or ``images[3]``, the first one that is at fault.
    """
    check_mode(mode)
    threads = cores() if threads is None else threads
    batch = np.empty((len(images), preprocessing.height, preprocessing.width, 3), np.uint8)
    strips = threads // max(1, min(threads, len(images)))

    def fill(index: int) -> None:
        name = "the image" if len(images) == 1 else f"images[{index}]"
        batch[index] = np.asarray(_fitted(images[index], preprocessing, mode, strips, name))

    parallel_map(fill, range(len(images)), threads)
    return batch


def _fitted(image: ImageInput, preprocessing: Preprocessing, mode: Mode, threads: int, name: str) -> PIL.Image.Image:
    interpolation = preprocessing.interpolation
    # Picking the nearest pixels costs nothing, and pixels averaged before would be other ones.
    fast = mode == "fast" and interpolation != "nearest"
    source = _open(image, name, preprocessing if fast else None)
    width, height = source.size
    fit = plan((width, height), preprocessing)
    if fit.width * fit.height > MAX_PIXELS:
        raise ImageError(
            f"{name}: with its shorter side scaled to {preprocessing.shortest_edge}, a picture of "
            f"{width} x {height} would be {fit.width} x {fit.height}; "
            "cut out the part that matters first"
        )
    if fast:
        return fit_fast(source.pixels, source.box, fit, interpolation)
    return fit_exactly(source.pixels, fit, interpolation, threads)


def _open(image: ImageInput, name: str, shrink_for: Preprocessing | None = None) -> Source:
    """As ``open_rgb``, but arrays and frames stay arrays. With ``shrink_for`` a large JPEG file is decoded smaller."""
    if isinstance(image, Frame):
        return whole(to_rgb(image))
    if isinstance(image, np.ndarray):
        _check_array(image, name)
        return whole(np.ascontiguousarray(image))
    if isinstance(image, PIL.Image.Image):
        with _decoding(name), _CALLERS_PICTURE:
            return whole(_upright_rgb(image, name))
    if isinstance(image, bytes):
        return _decode(BytesIO(image), name, shrink_for)
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        with _open_file(path) as file:
            return _decode(file, path, shrink_for)
    raise _not_an_image(image, name)


def _open_file(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        reason = "there is no such file; check the path"
    except IsADirectoryError:
        reason = "this is a folder, not a picture; name the files in it"
    except (OSError, ValueError) as error:
        reason = f"the file cannot be opened ({error})"
    raise ImageError(f"{path}: {reason}")


def _decode(file: BinaryIO, name: str, shrink_for: Preprocessing | None) -> Source:
    with _decoding(name):
        if not file.read(1):
            raise ImageError(f"{name}: expected an encoded picture, found 0 bytes; fetch it again")
        file.seek(0)
        with PIL.Image.open(file) as picture:
            if picture.format == "EPS":  # Pillow would run Ghostscript, an interpreter, on it
                raise ImageError(f"{name}: PostScript is a program, not a picture; convert it to PNG first")
            _check_size(picture, name)
            if shrink_for is None:
                return whole(_upright_rgb(picture, name))
            draft = shrink(picture, _orientation(picture), shrink_for)
            return draft.source(_upright_rgb(picture, name))


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises into one ImageError that names the picture."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except PIL.Image.DecompressionBombError:
        raise _too_large(name) from None
    except PIL.UnidentifiedImageError:
        raise ImageError(
            f"{name}: expected a picture (JPEG, PNG, WebP, TIFF, BMP, GIF, ...), found something that is none; "
            "check what wrote it"
        ) from None
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise ImageError(
            f"{name}: the picture is damaged or cut off ({error}); fetch it again, or leave it out"
        ) from error


def _check_size(picture: PIL.Image.Image, name: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(name, f"{picture.width} x {picture.height}")
    if picture.width == 0 or picture.height == 0:
        raise ImageError(f"{name}: expected at least one pixel, found {picture.width} x {picture.height}")


def _upright_rgb(picture: PIL.Image.Image, name: str) -> PIL.Image.Image:
    _check_size(picture, name)
    picture.load()
    picture = _apply_orientation(picture)
    if picture.mode == "F":
        raise ImageError(
            f"{name}: a 32-bit float picture has no range to scale to 8 bits from; convert it to 8 bits first"
        )
    if picture.mode.startswith("I"):
        return _high_byte(picture, name).convert("RGB")
    if "A" in picture.getbands() or picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = PIL.Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _orientation(picture: PIL.Image.Image) -> object:
    try:
        return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels
        return 1


def _apply_orientation(picture: PIL.Image.Image) -> PIL.Image.Image:
    if _orientation(picture) == 1:
        return picture
    try:
        return PIL.ImageOps.exif_transpose(picture)
    except Exception:  # as above
        return picture


def _high_byte(picture: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """16-bit grey to 8. Pillow up to 11 reads 16-bit PNG in its 32-bit mode "I", later ones in "I;16"."""
    values = np.asarray(picture)
    if picture.mode == "I" and (values.min() < 0 or values.max() > 0xFFFF):
        raise ImageError(
            f"{name}: expected 16-bit values, found {values.min()} to {values.max()} in a 32-bit picture; "
            "scale it to 8 bits first"
        )
    return PIL.Image.fromarray((values >> 8).astype(np.uint8))


def _check_array(array: NDArray[np.uint8], name: str) -> None:
    shape = array.shape
    if array.dtype == np.uint8 and array.ndim == 3 and shape[2] == 3 and array.size:
        if shape[0] * shape[1] > MAX_PIXELS:
            raise _too_large(name, f"{shape[1]} x {shape[0]}")
        return
    if array.size == 0:
        advice = "it is empty: check what was cut out"
    elif array.ndim == 3 and shape[0] == 3 and shape[2] != 3:
        advice = "np.moveaxis(array, 0, -1) puts the channels last"
    elif array.ndim == 3 and shape[2] == 4:
        advice = 'pass Frame.from_array(array, "rgba8") or "bgra8"'
    elif array.ndim == 2:
        advice = 'pass grey as Frame.from_array(array, "gray8")'
    else:
        advice = "convert the array"
    if array.dtype == np.uint16:
        advice += "; 16 bits become 8 by (array >> 8).astype(np.uint8)"
    elif array.dtype != np.uint8:
        advice += "; [0, 1] floats become bytes by (array * 255).round().astype(np.uint8)"
    raise ImageError(f"{name}: expected a uint8 (H, W, 3) RGB array, found {array.dtype} {shape}; {advice}")


def _too_large(name: str, size: str = "more") -> ImageError:
    return ImageError(f"{name}: expected at most {MAX_PIXELS:,} pixels, found {size}; scale the picture down first")


def _not_an_image(image: object, name: str) -> ImageError:
    return ImageError(
        f"{name}: expected a path, encoded bytes, a PIL image, a uint8 (H, W, 3) RGB array or a Frame, found "
        f"{type(image).__name__}"
    )
