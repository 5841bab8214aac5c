"""Opening a bundle checks it: nothing of a damaged, altered or incomplete one is handed out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from clipedge.bundle import MANIFEST_NAME, Bundle, open_bundle, sha256_of
from clipedge.errors import BundleError, UsageError


@pytest.fixture
def demo(demo_bundle: Path, tmp_path: Path) -> Bundle:
    """A copy of the demonstration bundle that may be damaged."""
    return open_bundle(shutil.copytree(demo_bundle, tmp_path / "demo"))


def test_every_file_of_a_fresh_bundle_passes_its_check(demo: Bundle) -> None:
    for variant in demo.manifest.variants:
        assert demo.checked_variant(variant).suffix == ".onnx"
    for entry in demo.manifest.files:
        assert demo.checked_file(entry.path) == demo.folder / entry.path
    assert demo.bank_names() == ["default"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "the path does not exist"),
        (lambda path: path.mkdir(), "is not a bundle: it has no clipedge.json"),
        (lambda path: path.write_bytes(b"onnx"), "is not a bundle: it has no clipedge.json"),
        (lambda path: (path / MANIFEST_NAME).mkdir(parents=True), "is not a bundle: it has no clipedge.json"),
    ],
    ids=["missing", "empty folder", "file", "manifest is a folder"],
)
def test_a_path_that_is_no_bundle_is_a_wrong_call(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "it")
    with pytest.raises(UsageError, match=message):
        open_bundle(tmp_path / "it")


def test_a_path_that_the_system_refuses_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(File name too long\); check the path"):
        open_bundle(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe{}", "not UTF-8"), (b" " * (4 * 1024 * 1024 + 1), "larger than any manifest"), (b"", "not JSON")],
    ids=["UTF-16", "huge", "empty"],
)
def test_a_damaged_manifest_is_refused(demo: Bundle, content: bytes, message: str) -> None:
    (demo.folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        open_bundle(demo.folder)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link_outside(path: Path) -> None:
    outside = path.parent.parent / "outside.bin"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "is not the file that was exported"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "is not the file that was exported"),
        (lambda path: path.write_bytes(b""), "is not the file that was exported"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: (path.unlink(), path.mkdir()), "is missing"),
        (link_outside, "a link that leaves the bundle's folder"),
        (lambda path: (path.unlink(), path.symlink_to("/nowhere/at/all")), "a link that leaves the bundle's folder"),
    ],
    ids=["bit flipped", "truncated", "emptied", "removed", "folder instead", "link outside", "link to nothing"],
)
@pytest.mark.parametrize("name", ["golden.safetensors", "image"])
def test_a_file_that_is_not_the_exported_one_is_refused(demo: Bundle, name: str, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    (variant,) = (variant for variant in demo.manifest.variants if variant.tower == "image")
    path = demo.folder / (variant.files[0].path if name == "image" else name)
    damage(path)
    with pytest.raises(BundleError, match=message) as error:
        demo.checked_variant(variant) if name == "image" else demo.checked_file(name)
    assert path.name in str(error.value)


def test_a_link_inside_the_bundle_is_followed(demo: Bundle) -> None:
    golden = demo.folder / "golden.safetensors"
    golden.rename(demo.folder / "elsewhere.bin")
    golden.symlink_to("elsewhere.bin")
    assert demo.checked_file("golden.safetensors") == golden


def test_a_file_that_the_manifest_does_not_list_is_not_handed_out(demo: Bundle) -> None:
    with pytest.raises(BundleError, match=r"has no report\.json"):
        demo.checked_file("report.json")


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
