"""`clipedge index` and `clipedge search` on rendered scenes with the demonstration model, end to end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import PIL.Image
import pyarrow.parquet
import pytest
from calling import Cli

from clipedge.calibration.scenes import write_folder
from clipedge.cli import main
from clipedge.retrieval.index import Index
from clipedge.retrieval.manifest import read_index_manifest


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_folder(folder, "test", 60, width=80, height=80, by_label=True)
    return folder


@pytest.fixture(scope="module")
def built(demo_bundle: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the scenes, not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("built") / "scenes.index"
    assert main(["index", str(demo_bundle), str(scenes), "--output", str(folder)]) == 0
    return folder


def label_of(key: str) -> str:
    return Path(key).parent.name.replace("_", " ")


def test_index_says_what_it_did_and_the_next_time_that_nothing_changed(
    clipedge: Cli, demo_bundle: Path, scenes: Path, tmp_path: Path
) -> None:
    arguments = ("index", demo_bundle, scenes, "--output", tmp_path / "index")
    outcome = clipedge(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        f"{tmp_path / 'index'}: 60 pictures",
        "  60 added, 0 replaced, 0 unchanged, 0 removed",
    ]
    document = clipedge(*arguments, "--json").document
    assert document.pop("engine")["backend"]
    assert document == {
        "index": str(tmp_path / "index"),
        "entries": 60,
        "listed_rows": 0,
        "parquet": None,
        "added": 0,
        "replaced": 0,
        "unchanged": 60,
        "removed": 0,
        "unreadable": [],
    }


def test_index_skips_and_names_what_cannot_be_read(
    clipedge: Cli, demo_bundle: Path, scenes: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for place, path in enumerate(sorted(scenes.rglob("*.png"))[:3]):
        shutil.copy(path, pictures / f"{place}.png")
    (pictures / "1.png").write_bytes(b"no picture")
    outcome = clipedge("index", demo_bundle, pictures, "--output", tmp_path / "index")
    assert outcome.code == 0
    first, counts, left_out, line = outcome.out.splitlines()
    assert first.endswith(": 2 pictures")
    assert counts.split()[0] == "2"
    assert left_out == "  1 not readable, left out:"
    assert str(pictures / "1.png") in line
    document = clipedge("index", demo_bundle, pictures, "--output", tmp_path / "index", "--json").document
    assert (document["unchanged"], len(document["unreadable"])) == (2, 1)


def test_an_index_becomes_a_parquet_file_with_its_pictures_or_without(
    clipedge: Cli, built: Path, scenes: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(built, tmp_path / "index")
    with_pictures, alone, again = (tmp_path / f"{name}.parquet" for name in ("with", "alone", "again"))
    outcome = clipedge("index", demo_bundle, scenes, "--output", index, "--parquet", with_pictures)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[-1] == f"  written to {with_pictures}"
    assert clipedge("index", "--output", index, "--parquet", alone).out == f"{alone}: 60 pictures of {index}\n"
    document = clipedge("index", "--output", index, "--parquet", again, "--json").document
    assert document == {"index": str(index), "entries": 60, "parquet": str(again)}
    assert with_pictures.read_bytes() == alone.read_bytes() == again.read_bytes()
    keys = pyarrow.parquet.read_table(alone)["key"].to_pylist()
    assert set(keys) == set(map(str, scenes.rglob("*.png")))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--output", "INDEX"), 2, "name the bundle and the folder of pictures"),
        (("BUNDLE", "--output", "INDEX", "--parquet", "FILE"), 2, "name the bundle and the folder of pictures"),
        (("--output", "NOTHING", "--parquet", "FILE"), 2, "there is no index at"),
        (("--output", "INDEX", "--parquet", "INDEX"), 2, "is a folder: name a file"),
        (("--output", "INDEX", "--parquet", "INDEX/index.json/FILE"), 2, "cannot be written"),
    ],
)
def test_exports_that_make_no_sense(
    clipedge: Cli, built: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    outcome = clipedge("index", *(word.replace("INDEX", str(built)) for word in arguments))
    assert (outcome.code, outcome.out) == (code, "")
    (line,) = outcome.err.splitlines()
    assert message in line


def test_a_text_finds_pictures_of_it(clipedge: Cli, built: Path, scenes: Path) -> None:
    labels = sorted({path.parent.name for path in scenes.rglob("*.png")})[::7]
    right = 0
    for label in labels:
        text = f"a photo of a {label.replace('_', ' ')}."
        document = clipedge("search", built, "--text", text, "--top", "3", "--json").document
        scores = [hit["score"] for hit in document["hits"]]
        assert (len(scores), document["entries"], document["text"]) == (3, 60, text)
        assert scores == sorted(scores, reverse=True)
        right += any(label_of(hit["key"]) == label.replace("_", " ") for hit in document["hits"])
    assert right >= len(labels) - 2


def test_a_picture_finds_itself_first(clipedge: Cli, built: Path, scenes: Path) -> None:
    for path in sorted(scenes.rglob("*.png"))[::20]:
        first, second = clipedge("search", built, "--image", path, "--top", "2").out.splitlines()
        assert first == f"1.000  {path}"
        assert float(second.split()[0]) < 1.0005


def test_another_precision_of_the_model_may_search(
    clipedge: Cli, built: Path, scenes: Path, demo_bundle_fp32: Path
) -> None:
    path = min(scenes.rglob("*.png"))
    document = clipedge("search", built, "--image", path, "--bundle", demo_bundle_fp32, "--json").document
    assert document["hits"][0]["key"] == str(path)
    assert 0.9 < document["hits"][0]["score"] < 1.001


def test_the_sheet_shows_the_hits_and_a_grey_place_for_what_is_gone(
    clipedge: Cli, demo_bundle: Path, tmp_path: Path
) -> None:
    pictures = write_folder(tmp_path / "pictures", "test", 3, width=64, height=64)
    assert clipedge("index", demo_bundle, tmp_path / "pictures", "--output", tmp_path / "index").code == 0
    pictures[0].unlink()
    sheet = tmp_path / "sheet.png"
    arguments = ("search", tmp_path / "index", "--text", "a photo of a red circle.", "--sheet", sheet, "--json")
    hits = clipedge(*arguments).document["hits"]
    drawn = PIL.Image.open(sheet).convert("RGB")
    gone = [hit["key"] for hit in hits].index(str(pictures[0]))
    for place, hit in enumerate(hits):
        cell = drawn.crop((place * 224 + 10, 10, place * 224 + 210, 210))
        assert (set(cell.getdata()) == {(128, 128, 128)}) == (place == gone), hit


def test_a_large_index_gets_lists_and_finds_the_same(
    clipedge: Cli, built: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipedge.cli.index.AUTOMATIC_ROWS", 60)
    index = shutil.copytree(built, tmp_path / "index")
    bundle = read_index_manifest(index).bundle
    assert bundle is not None
    assert clipedge("index", bundle, scenes, "--output", index, "--json").document["listed_rows"] == 60
    by_lists, exactly = (
        clipedge("search", index, "--text", "a photo of a star.", *more).out for more in ((), ("--exact",))
    )
    assert by_lists == exactly == clipedge("search", built, "--text", "a photo of a star.").out


def test_captions_describe_a_picture(clipedge: Cli, demo_bundle: Path, scenes: Path, tmp_path: Path) -> None:
    path = min(scenes.rglob("*.png"))
    labels = sorted({label_of(str(other)) for other in scenes.rglob("*.png")})
    (tmp_path / "captions.txt").write_text("\n\n".join(f" a photo of a {label}. " for label in labels), "utf-8-sig")
    arguments = ("search", "--captions", tmp_path / "captions.txt", "--image", path, "--bundle", demo_bundle)
    found = clipedge(*arguments, "--top", "4", "--json").document["captions"]
    assert f"a photo of a {label_of(str(path))}." in [item["caption"] for item in found]
    assert [item["score"] for item in found] == sorted((item["score"] for item in found), reverse=True)
    lines = clipedge(*arguments, "--top", "4").out.splitlines()
    assert lines == [f"{item['score']:.3f}  {item['caption']}" for item in found]


def test_the_bundle_is_looked_for_where_it_was(clipedge: Cli, built: Path, demo_bundle: Path, tmp_path: Path) -> None:
    assert read_index_manifest(built).bundle == os.fspath(demo_bundle)
    index = shutil.copytree(built, tmp_path / "index")
    manifest = json.loads((index / "index.json").read_text())
    (index / "index.json").write_text(json.dumps({**manifest, "bundle": "/nowhere"}))
    outcome = clipedge("search", index, "--text", "x")
    assert (outcome.code, outcome.out) == (2, "")
    assert "is not at /nowhere any more" in outcome.err
    assert "--bundle" in outcome.err
    assert clipedge("search", index, "--text", "x", "--bundle", demo_bundle).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name an index to search"),
        (("INDEX",), "either --text T or --image F"),
        (("INDEX", "--text", "a", "--image", "b"), "either --text T or --image F"),
        (("INDEX", "--text", "a", "--top", "0"), "expected 1 or more, found 0"),
        (("NOTHING", "--text", "a"), "there is no index at"),
        (("--captions", "NOTHING", "--image", "x", "--bundle", "y"), "cannot be read"),
        (("--captions", "NOTHING", "--image", "x"), "--bundle B"),
        (("INDEX", "--captions", "NOTHING"), "leave out the index"),
        (("INDEX", "--text", "a", "--sheet", "NOTHING.xyz"), "has to end in .png or .jpg"),
        (("INDEX", "--image", "NOTHING.png"), "NOTHING.png"),
    ],
)
def test_calls_that_make_no_sense(clipedge: Cli, built: Path, arguments: tuple[str, ...], message: str) -> None:
    outcome = clipedge("search", *(str(built) if word == "INDEX" else word for word in arguments))
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert message in line


def test_an_index_of_another_model_is_refused_and_unchanged(
    clipedge: Cli, built: Path, scenes: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    index = tmp_path / "other"
    Index.create(index, "f" * 64, read_index_manifest(built).dim, str(demo_bundle)).close()
    for arguments in (("search", index, "--text", "a"), ("index", demo_bundle, scenes, "--output", index)):
        outcome = clipedge(*arguments)
        assert (outcome.code, outcome.out) == (1, "")
        assert "made with another model (space ffffffffffff" in outcome.err


def test_an_index_that_is_being_written_is_not_written_to(
    clipedge: Cli, built: Path, scenes: Path, demo_bundle: Path, tmp_path: Path
) -> None:
    index = shutil.copytree(built, tmp_path / "index")
    with Index.open(index, read_index_manifest(index).space_id, writable=True):
        outcome = clipedge("index", demo_bundle, scenes, "--output", index)
        assert (outcome.code, outcome.out) == (1, "")
        assert "another process" in outcome.err
        assert clipedge("search", index, "--text", "a").code == 0


def test_a_folder_without_pictures_makes_no_index(clipedge: Cli, demo_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert clipedge("index", demo_bundle, tmp_path / "empty", "--output", tmp_path / "index").code == 2
    assert not (tmp_path / "index").exists()
