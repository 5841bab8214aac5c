"""Webdataset tars: pictures are read where they lie, one at a time. Nothing is ever extracted to disk.

A member's name up to the first dot of its last part is its sample's key, the rest says what it is: ``KEY.jpg`` (or
another of ``PICTURE_SUFFIXES``) is a picture, ``KEY.cls`` its class as text and ``KEY.txt`` its caption. Members of
other kinds, folders, links and devices are passed over, and so is what is hidden (".name"). Of two members with one
name the later counts, as in tar.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipedge.errors import ImageError, UsageError
from clipedge.folders import PICTURE_SUFFIXES

__all__ = ["TarPicture", "TarSample", "read_tar"]

MAX_PICTURE_BYTES = 256 * 2**20
MAX_CLASS_BYTES = 1000
MAX_CAPTION_BYTES = 10_000
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


@dataclass(frozen=True)
class TarPicture:
    """An encoded picture inside a tar: ``size`` bytes from ``offset`` on. ``name`` is only a name, never a path."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.tar}: {self.name!r}"

    def read(self) -> bytes:
        """The picture's bytes. Raises ImageError for more than ``MAX_PICTURE_BYTES``, or if the tar has changed."""
        if self.size > MAX_PICTURE_BYTES:
            raise ImageError(
                f"{self}: expected at most {MAX_PICTURE_BYTES:,} bytes, found {self.size:,}; scale the picture down"
            )
        try:
            with self.tar.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise ImageError(f"{self}: the tar cannot be read ({error.strerror})") from None
        if len(data) < self.size:
            raise ImageError(f"{self}: the tar has become shorter since it was opened; leave it alone meanwhile")
        return data


@dataclass(frozen=True)
class TarSample:
    """A picture with what the other members of its key say of it, where there are any."""

    picture: TarPicture
    label: str | None
    caption: str | None


def read_tar(tar: Path, captions: bool = False) -> list[TarSample]:
    """The pictures of a tar in its order, with the classes of their samples and, if asked for, their captions.

    Reads the headers and the texts, not the pictures. Raises UsageError for a tar that is compressed, cut off or
    none, and for a class or caption that is empty, too long or no UTF-8.
    """
    pictures: dict[str, TarPicture] = {}
    texts: dict[str, dict[str, str]] = {".cls": {}, ".txt": {}} if captions else {".cls": {}}
    try:
        with tar.open("rb") as file:
            if file.read(6).startswith(COMPRESSED):
                raise UsageError(f"{tar} is compressed, and its pictures are read from the middle: unpack it to a .tar")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep a kilobyte for each
                    if archive.offset <= member.offset:
                        raise tarfile.ReadError(f"{member.name!r} ends before it begins")
                    _take(archive, member, tar, pictures, texts)
                # tarfile takes anything that is no header for the end.
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError(f"no member begins at byte {archive.offset}")
    except OSError as error:
        raise UsageError(f"{tar} cannot be read: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError, ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{tar} is no tar, damaged or cut off ({error}): fetch or pack it again") from None
    labels, found = texts[".cls"], texts.get(".txt", {})
    return [TarSample(item, labels.get(_key(name)), found.get(_key(name))) for name, item in pictures.items()]


def _take(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    tar: Path,
    pictures: dict[str, TarPicture],
    texts: dict[str, dict[str, str]],
) -> None:
    """Note what one member is. ``texts`` holds, for each ending that is wanted, the texts by their samples' keys."""
    name = PurePosixPath(member.name)
    if not member.isreg() or member.issparse() or name.name.startswith("."):
        return
    if name.suffix.lower() in PICTURE_SUFFIXES:
        pictures.pop(member.name, None)  # the later one takes its place at the end
        pictures[member.name] = TarPicture(tar, member.name, member.offset_data, member.size)
    elif name.suffix in texts:
        texts[name.suffix][_key(member.name)] = _text(archive, member, tar, name.suffix)


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo, tar: Path, suffix: str) -> str:
    what, limit = ("class", MAX_CLASS_BYTES) if suffix == ".cls" else ("caption", MAX_CAPTION_BYTES)
    content = archive.extractfile(member)
    data = b"" if content is None else content.read(limit + 1)
    if not data.strip() or len(data) > limit:
        raise UsageError(f"{tar}: {member.name!r} should hold a {what} in 1 to {limit} bytes, it has {member.size}")
    try:
        return " ".join(data.decode("utf-8").split())
    except UnicodeDecodeError:
        raise UsageError(f"{tar}: {member.name!r} should hold a {what} as UTF-8 text") from None


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]
