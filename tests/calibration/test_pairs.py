"""Lists of pictures with captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipedge.calibration.data import read_pictures
from clipedge.calibration.pairs import read_pairs
from clipedge.errors import UsageError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'path,caption\nx/1.png,"a cat, asleep"\n2.png,a  dog\nx/1.png,a grey cat\n'),
        ("a.csv", '\ufefffilepath,title\nx/1.png,"a cat, asleep"\nx/1.png,a grey cat\n2.png,a dog\n'),
        ("a.tsv", "title\tfilepath\na cat, asleep\tx/1.png\na grey cat\tx/1.png\na dog\t2.png\n"),
        (
            "a.jsonl",
            '{"file_name": "x/1.png", "text": ["a cat, asleep", "a grey cat"]}\n\n'
            '{"path": "2.png", "caption": "a dog"}\n',
        ),
    ],
)
def test_the_formats_say_the_same(name: str, text: str, tmp_path: Path) -> None:
    expected = {tmp_path / "x/1.png": ("a cat, asleep", "a grey cat"), tmp_path / "2.png": ("a dog",)}
    assert read_pairs(write(tmp_path / name, text)) == expected
    pictures = read_pictures(tmp_path / name)
    assert pictures.captions is not None
    assert dict(zip(pictures.items, pictures.captions, strict=True)) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "names no picture"),
        ("a.csv", "path,caption\n", "names no picture"),
        ("a.csv", "file,caption\n1.png,a cat\n", "line 2: expected a column path or image .* found file, caption"),
        ("a.csv", "path,label\n1.png,cat\n", "expected a column caption"),
        ("a.csv", "path,caption\n1.png,a cat\n2.png,  \n", "line 3: 2.png has no caption"),
        ("a.csv", "path,caption\n1.png\n", "1.png has no caption"),
        ("a.csv", 'path,caption\n1.png,"a cat\n', "no table"),
        ("a.csv", "path,caption\n,a cat\n", "expected the path"),
        ("a.jsonl", '{"path": "1.png", "caption": "a"}\n[1]\n', "line 2: expected an object"),
        ("a.jsonl", "{", "line 1"),
        ("a.jsonl", '{"path": 3, "caption": "a"}', "expected the path"),
        ("a.jsonl", '{"path": "1.png", "caption": []}', "no caption"),
        ("a.jsonl", '{"path": "1.png", "caption": [7]}', "no caption"),
        ("a.jsonl", json.dumps({"path": "1\0.png", "caption": "a"}), "expected the path"),
    ],
)
def test_what_is_no_list_is_refused_by_its_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_pairs(write(tmp_path / name, text))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_is_no_text_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\xff\xfe\x00path")
    with pytest.raises(UsageError, match="UTF-8"):
        read_pairs(tmp_path / name)
