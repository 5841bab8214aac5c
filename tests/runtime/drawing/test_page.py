"""Pages are whole, written in one step, and what stands in them is text."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipedge.drawing.page import figure, html_page, interval, percent, table, write_page


def test_a_table_escapes_its_cells() -> None:
    found = table(("<a>", "b"), [("x & y", 1), ("<td>", 2.5)], "words", "<caption>")
    assert "<a>" not in found and "&lt;a&gt;" in found
    assert found.count("<td>") == 4
    assert "x &amp; y" in found and "2.5" in found
    assert found.count("<caption>") == 1


def test_a_page_needs_nothing_else() -> None:
    page = html_page("a <b>", ["<p>one</p>", figure("<svg></svg>", "two")], ".mine { color: red; }")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert "<title>ClipEdge: a &lt;b&gt;</title>" in page
    assert ".mine { color: red; }" in page
    assert page.index("<p>one</p>") < page.index("<figcaption>two</figcaption>")
    assert "http" not in page and "<script" not in page


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_page("file \udcff and ü", path)
    assert path.read_bytes() == b"file \\udcff and \xc3\xbc"
    write_page("second", path)
    assert path.read_text(encoding="utf-8") == "second"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_page("third", tmp_path / "folder")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["folder", "new", "page.html"]


def test_figures_for_readers() -> None:
    assert percent(0.1236, 2) == "12.36 %"
    assert interval((0.1, 0.25), 100) == "10.00 to 25.00"
    assert interval(None) == ""
