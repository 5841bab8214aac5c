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
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from clipedge.errors import ImageError
from clipedge.frames import Frame, to_rgb
from clipedge.manifest import Preprocessing

__all__ = ["MAX_PIXELS", "ImageInput", "Images", "as_list", "open_rgb", "preprocess"]

ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | PIL.Image.Image | NDArray[np.uint8] | Frame"
Images: TypeAlias = "ImageInput | Iterable[ImageInput]"

# A few kilobytes can decode to gigabytes. This is where Pillow itself gives up (DecompressionBombError): 716 MB
# as Pillow holds it, and still more than the 108 megapixels of a phone.
MAX_PIXELS = 178_956_970

_ORIENTATION = 0x0112  # the EXIF tag
_INTERPOLATION = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}


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
    return _open(image, "the image")


def preprocess(images: Sequence[ImageInput], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode, resize and crop. Returns uint8 RGB of shape (N, height, width, 3), C-contiguous.

    Method: the shorter side is scaled to ``shortest_edge`` and the longer one to ``int(shortest_edge * long /
    short)`` pixels with Pillow's filter; then ``height`` x ``width`` is cut out at ``floor((size - crop) / 2)``,
    black where the picture is smaller than that. ``resize="squash"`` scales both sides and cuts nothing.
    Pictures are decoded one at a time. Raises ImageError naming the picture: its path, or ``images[3]``.
    """
    batch = np.empty((len(images), preprocessing.height, preprocessing.width, 3), np.uint8)
    for index, image in enumerate(images):
        name = "the image" if len(images) == 1 else f"images[{index}]"
        batch[index] = np.asarray(_fit(_open(image, name), preprocessing, name))
    return batch


def _fit(picture: PIL.Image.Image, preprocessing: Preprocessing, name: str) -> PIL.Image.Image:
    width, height = preprocessing.width, preprocessing.height
    interpolation = _INTERPOLATION[preprocessing.interpolation]
    if preprocessing.resize == "squash":
        return picture.resize((width, height), interpolation)
    resized_width, resized_height = _resized_size(picture.size, preprocessing.shortest_edge)
    if resized_width * resized_height > MAX_PIXELS:
        raise ImageError(
            f"{name}: with its shorter side scaled to {preprocessing.shortest_edge}, a picture of "
            f"{picture.width} x {picture.height} would be {resized_width} x {resized_height}; "
            "cut out the part that matters first"
        )
    resized = picture.resize((resized_width, resized_height), interpolation)
    left, top = (resized_width - width) // 2, (resized_height - height) // 2
    # Pillow fills what lies outside the picture with black.
    return resized.crop((left, top, left + width, top + height))


def _resized_size(size: tuple[int, int], shortest_edge: int) -> tuple[int, int]:
    width, height = size
    # This order of operations, in floating point, truncated: any other moves some sizes by one pixel.
    if width <= height:
        return shortest_edge, int(shortest_edge * height / width)
    return int(shortest_edge * width / height), shortest_edge


def _open(image: ImageInput, name: str) -> PIL.Image.Image:
    if isinstance(image, Frame):
        return PIL.Image.fromarray(to_rgb(image))
    if isinstance(image, np.ndarray):
        _check_array(image, name)
        return PIL.Image.fromarray(np.ascontiguousarray(image))
    if isinstance(image, PIL.Image.Image):
        with _decoding(name):
            return _upright_rgb(image, name)
    if isinstance(image, bytes):
        return _decode(BytesIO(image), name)
    if isinstance(image, (str, os.PathLike)):
        path = os.fspath(image)
        with _open_file(path) as file:
            return _decode(file, path)
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


def _decode(file: BinaryIO, name: str) -> PIL.Image.Image:
    with _decoding(name):
        if not file.read(1):
            raise ImageError(f"{name}: expected an encoded picture, found 0 bytes; fetch it again")
        file.seek(0)
        with PIL.Image.open(file) as picture:
            if picture.format == "EPS":  # Pillow would run Ghostscript, an interpreter, on it
                raise ImageError(f"{name}: PostScript is a program, not a picture; convert it to PNG first")
            return _upright_rgb(picture, name)


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


def _upright_rgb(picture: PIL.Image.Image, name: str) -> PIL.Image.Image:
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(name, f"{picture.width} x {picture.height}")
    if picture.width == 0 or picture.height == 0:
        raise ImageError(f"{name}: expected at least one pixel, found {picture.width} x {picture.height}")
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


def _apply_orientation(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        if picture.getexif().get(_ORIENTATION, 1) == 1:
            return picture
        return PIL.ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block says nothing about the pixels, which are decoded by now
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
