"""Where calibration and proof pictures come from."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipedge.calibration.data import Pictures, pixel_batches, read_pictures, scene_pictures, split_pictures
from clipedge.calibration.tars import MAX_PICTURE_BYTES
from clipedge.calibration.texts import everyday_captions, tower_texts
from clipedge.calibration.variety import PictureVariety
from clipedge.errors import ImageError, UsageError
from clipedge.manifest import Preprocessing

PIXELS = Preprocessing(
    height=16,
    width=16,
    resize="shortest-edge",
    shortest_edge=16,
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (20, 30), (i, 0, 0)).save(folder / f"{i}.png")


def test_calibration_and_proof_never_share_a_picture(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 10)
    write_pictures(tmp_path / "traffic_light", 11)
    pictures = read_pictures(tmp_path)
    calibration, proof = split_pictures(pictures)
    assert pictures.class_names == ("cat", "traffic light")
    assert not set(map(str, calibration.items)) & set(map(str, proof.items))
    assert len(calibration) + len(proof) == 21
    for part in (calibration, proof):
        assert part.labels is not None
        names = [str(Path(str(item)).parent.name).replace("_", " ") for item in part.items]
        assert names == [part.class_names[label] for label in part.labels]


def test_scene_splits_share_no_picture() -> None:
    calibration, proof = scene_pictures("calibration", 40, 32), scene_pictures("proof", 40, 32)
    assert not {np.asarray(p).tobytes() for p in calibration.items} & {np.asarray(p).tobytes() for p in proof.items}


def test_pictures_beside_sub_folders_have_no_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path / "cat", 2)
    write_pictures(tmp_path, 1)
    assert read_pictures(tmp_path).labels is None


def test_unreadable_pictures_are_named_and_the_others_keep_their_index(tmp_path: Path) -> None:
    write_pictures(tmp_path, 5)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    unreadable: list[str] = []
    batches = list(pixel_batches(read_pictures(tmp_path), PIXELS, unreadable, batch=3))
    assert [indices.tolist() for indices, _ in batches] == [[0, 1, 3], [4]]
    assert [pixels[0, 0, 0, 0] for _, pixels in batches] == [0, 4]
    assert len(unreadable) == 1 and "2.png" in unreadable[0]


@pytest.mark.parametrize("batch", [1, 2, 5, 16, 100])
def test_pictures_read_in_parallel_keep_their_order(tmp_path: Path, batch: int) -> None:
    write_pictures(tmp_path, 40)
    damaged = (3, 4, 17, 39)
    for number in damaged:
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    pictures = Pictures("forty", [tmp_path / f"{number}.png" for number in range(40)])
    unreadable: list[str] = []
    batches = list(pixel_batches(pictures, PIXELS, unreadable, batch=batch))
    whole = [number for number in range(40) if number not in damaged]
    assert np.concatenate([indices for indices, _ in batches]).tolist() == whole
    assert np.concatenate([pixels for _, pixels in batches])[:, 0, 0, 0].tolist() == whole
    assert all(len(indices) == batch for indices, _ in batches[:-1])
    assert [Path(line.partition(":")[0]).name for line in unreadable] == [f"{number}.png" for number in damaged]


def test_no_readable_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"none of the 1 pictures .*a\.png"):
        list(pixel_batches(read_pictures(tmp_path), PIXELS, []))


def test_empty_missing_and_small_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no pictures"):
        read_pictures(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        read_pictures(tmp_path / "missing")
    with pytest.raises(UsageError, match="at least"):
        split_pictures(Pictures("three", [np.zeros((2, 2, 3), np.uint8)] * 3))


def test_no_proof_text_was_calibrated_on() -> None:
    calibration, proof = tower_texts(["cat", "dog", "a {brace}"], ["a photo of a {}.", "{}"])
    assert not set(calibration) & set(proof)
    assert {"cat", "a photo of a dog.", "a {brace}"} <= {*calibration, *proof}
    assert min(len(calibration), len(proof)) > 100


def test_captions_are_a_function_of_the_seed() -> None:
    assert everyday_captions(50, 1) == everyday_captions(50, 1) != everyday_captions(50, 2)


# ---- list files ----------------------------------------------------------------------------------------------------


def test_a_list_names_pictures_beside_it_and_their_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "far" / "away", 3)
    absolute = tmp_path / "far" / "away" / "2.png"
    lines = ["# path, class", "", "far/away/0.png\ta cat", "  far/away/1.png \t dog ", f"{absolute}\ta cat", ""]
    (tmp_path / "list.txt").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    pictures = read_pictures(tmp_path / "list.txt")
    assert [Path(str(item)).name for item in pictures.items] == ["0.png", "1.png", "2.png"]
    assert pictures.class_names == ("a cat", "dog") and pictures.labels is not None
    assert pictures.labels.tolist() == [0, 1, 0]
    ((_, pixels),) = pixel_batches(pictures, PIXELS, [])
    assert pixels[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_listed_file_that_is_missing_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "list.txt").write_text("0.png\ngone.png\n")
    unreadable: list[str] = []
    assert len(list(pixel_batches(read_pictures(tmp_path / "list.txt"), PIXELS, unreadable))) == 1
    assert len(unreadable) == 1 and "gone.png" in unreadable[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no picture"),
        (b"# only this\n\n", "names no picture"),
        (b"\xff\xfe", "UTF-8"),
        (b"a.png\nb.png\n./a.png\n", "line 3: ./a.png is in the list already"),
        (b"a.png\tcat\nb.png\n", r"1 pictures have a class and 1 have none.*b\.png"),
    ],
)
def test_lists_that_cannot_be_used(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_pictures(tmp_path / "list.txt")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures.ods").write_text("a.png,cat")
    with pytest.raises(UsageError, match="neither a folder"):
        read_pictures(tmp_path / "pictures.ods")


# ---- webdataset tars -----------------------------------------------------------------------------------------------


def png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 30), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w", format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=format) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def red(pictures: Pictures, unreadable: list[str] | None = None) -> list[int]:
    batches = pixel_batches(pictures, PIXELS, [] if unreadable is None else unreadable, batch=4)
    return [int(value) for _, pixels in batches for value in pixels[:, 0, 0, 0]]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_members_of_a_sample_belong_together(format: int, tmp_path: Path) -> None:
    members: list[tuple[str, bytes]] = []
    for i in range(12):
        members += [
            (f"part/{i:04}.cls", str(i % 11).encode() + b"\n"),
            (f"part/{i:04}.png", png(i)),
            (f"part/{i:04}.json", b"{}"),
        ]
    tar = write_tar(tmp_path / "a.tar", members, format=format)
    pictures = read_pictures(tar)
    assert pictures.class_names == tuple(map(str, range(11)))  # numbers in their order, not "10" before "2"
    assert pictures.labels is not None and pictures.labels.tolist() == [*range(11), 0]
    assert red(pictures) == list(range(12)) == red(pictures)
    calibration, proof = split_pictures(pictures)
    assert red(proof) == [2, 5, 8, 11] and not {*red(calibration)} & {*red(proof)}


def test_a_folder_of_tars_is_one_set(tmp_path: Path) -> None:
    for shard in range(3):
        write_tar(tmp_path / f"{shard}.tar", [(f"{i}.png", png(10 * shard + i)) for i in range(2)])
    pictures = read_pictures(tmp_path)
    assert red(pictures) == [0, 1, 10, 11, 20, 21] and pictures.labels is None


def test_names_in_a_tar_are_only_names(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    names = ["../../escaped.png", "/absolute.png", "x" * 300 + ".png", "a.b.png", "back\\slash.png", "é.png"]
    pictures = read_pictures(write_tar(inside / "a.tar", [(name, png(i)) for i, name in enumerate(names)]))
    assert red(pictures) == list(range(len(names)))
    assert [path.name for path in tmp_path.rglob("*")] == ["inside", "a.tar"]


def test_links_folders_and_hidden_members_are_no_pictures(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(99))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{int(kind)}.png")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    write_tar(tmp_path / "a.tar", [("._b.png", png(1)), ("c.png", png(2)), ("c.png", png(3))], mode="a")
    assert red(read_pictures(tmp_path / "a.tar")) == [3]  # of two members with one name the later counts


def test_a_damaged_picture_in_a_tar_is_named(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", [("good.png", png(7)), ("bad.png", png(8)[:50]), ("empty.png", b"")])
    unreadable: list[str] = []
    assert red(read_pictures(tar), unreadable) == [7]
    assert [line.split("'")[1] for line in unreadable] == ["bad.png", "empty.png"]
    assert all(line.startswith(f"{tar}: ") for line in unreadable)


def test_a_picture_that_is_too_large_is_named_and_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as file:
        info = tarfile.TarInfo("large.png")
        info.size = MAX_PICTURE_BYTES + 512
        file.write(info.tobuf())
        file.truncate(512 + info.size)  # a hole: nothing is written
    with pytest.raises(ImageError, match=r"'large.png': expected at most 268,435,456 bytes"):
        red(read_pictures(tmp_path / "a.tar"))


GOOD_TAR = [(f"{i}.png", png(i)) for i in range(4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:700], "cut off"),  # inside a picture
        (lambda data: data[: 2 * 1024 + 100], "cut off"),  # inside a header
        (lambda data: data[:1024] + b"\xff" * 512 + data[1536:], "cut off"),  # a header in the middle
        (lambda data: b"", "cut off"),
        (lambda data: b"no tar" * 500, "cut off"),
        (lambda data: b"\0" * 10240, "holds no pictures"),
    ],
)
def test_damaged_tars_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", GOOD_TAR)
    tar.write_bytes(change(tar.read_bytes()))
    with pytest.raises(UsageError, match=message):
        read_pictures(tar)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_compressed_tars_are_refused_by_what_they_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unpack it"):
        read_pictures(write_tar(tmp_path / name, GOOD_TAR, mode="w:gz"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([("0.cls", b"cat")], "1 pictures have a class and 3 have none"),
        ([("0.cls", b" ")], "1 to 1000 bytes"),
        ([("0.cls", b"x" * 5000)], "1 to 1000 bytes"),
        ([("0.cls", b"\xff")], "UTF-8"),
    ],
)
def test_classes_that_cannot_be_used(extra: list[tuple[str, bytes]], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_pictures(write_tar(tmp_path / "a.tar", GOOD_TAR + extra))


def test_headers_that_run_backwards_end(tmp_path: Path) -> None:
    """A negative size in an extended header made tarfile read the same members for ever (CVE-2025-8194)."""
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("a.png", {}), ("b.png", {"size": "-2048"})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(png(0)), headers
            archive.addfile(info, io.BytesIO(png(0)))
    with pytest.raises(UsageError, match="cut off"):
        read_pictures(tmp_path / "a.tar")


def test_memory_holds_no_pictures_of_a_tar(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    tar = write_tar(tmp_path / "a.tar", [(f"{i}.png", stream.getvalue()) for i in range(100)])
    tracemalloc.start()
    for _ in pixel_batches(read_pictures(tar), PIXELS, []):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tar.stat().st_size / 10


# ---- pictures that show nothing ------------------------------------------------------------------------------------


def noisy(count: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 8, 8, 3), np.uint8)


def variety_of(*batches: np.ndarray) -> PictureVariety:
    variety = PictureVariety()
    for batch in batches:
        variety.update(batch)
    return variety


def test_walls_of_one_colour_are_refused_also_with_a_cameras_noise() -> None:
    walls = np.arange(0, 200, 25, np.uint8)[:, None, None, None] + noisy(8) // 32
    with pytest.raises(UsageError, match="calibrating: each of the 8 pictures of here is one colour"):
        variety_of(walls[:5], walls[5:]).check("here", "calibrating")


def test_the_same_picture_again_and_again_is_refused() -> None:
    with pytest.raises(UsageError, match="are all the same picture"):
        variety_of(*[noisy(1)] * 10).check("here", "calibrating")


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([np.zeros((6, 8, 8, 3), np.uint8), noisy(5)], "6 of 11 pictures of here are one colour"),
        ([noisy(4), noisy(4), noisy(4)], "8 of 12 pictures of here repeat another"),
    ],
)
def test_mostly_nothing_is_warned_of(batches: list[np.ndarray], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        variety_of(*batches).check("here", "calibrating")


def test_pictures_that_show_something_pass_without_a_word() -> None:
    gradient = np.linspace(0, 40, 64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, axis=3)  # a shaded wall
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variety_of(noisy(6), np.zeros((6, 8, 8, 3), np.uint8)[:2]).check("here", "calibrating")
        variety_of(gradient).check("here", "calibrating")
        variety_of().check("here", "calibrating")
