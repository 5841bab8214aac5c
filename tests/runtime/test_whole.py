"""Files are there as a whole or as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipedge.whole import whole_file, write_whole


def test_a_file_is_made_and_then_replaced_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    for data in (b"first", b"second"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert [found.name for found in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("before", [b"old", None])
def test_an_exception_leaves_what_was_there_and_nothing_else(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "sheet.png"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(ZeroDivisionError), whole_file(path) as staging:
        staging.write_bytes(b"half")
        assert staging.suffix == ".png", "Pillow goes by the name"
        assert not path.exists() or path.read_bytes() == before, "not before all is written"
        raise ZeroDivisionError
    assert [found.read_bytes() for found in tmp_path.iterdir()] == ([before] if before else [])


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"), whole_file(tmp_path / "missing" / "file") as staging:
        staging.write_bytes(b"")
