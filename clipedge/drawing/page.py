"""Parts of a page that needs nothing but itself: no script, no request; on a phone, on paper, in the dark."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipedge.whole import write_whole

__all__ = ["escaped", "figure", "html_page", "interval", "percent", "table", "write_page"]

STYLE = """
:root { color-scheme: light dark; --rule: #8886; --soft: #8882; --good: #1a7f37; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --good: #4cc267; --bad: #ff7b72; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid var(--rule); }
.verdict { border-left: .4rem solid var(--good); background: var(--soft); padding: .6rem 1rem; }
.verdict.failed { border-color: var(--bad); }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .3rem 0; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
th { font-weight: 600; }
th:first-child, td:first-child, .words th, .words td, .facts td { text-align: left; }
.facts td:last-child { overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption, .note { font-size: .875rem; opacity: .85; }
svg { width: 100%; max-width: 40rem; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: inherit !important; }
@media print {
  body { max-width: none; padding: 0; }
  .table { overflow: visible; }
  tr, figure { break-inside: avoid; }
  .verdict { print-color-adjust: exact; }
}
"""


def html_page(title: str, sections: Iterable[str], style: str = "") -> str:
    """The whole page. ``sections`` are HTML; ``style`` is added to the common one."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ClipEdge: {escaped(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def write_page(page: str, file: str | os.PathLike[str]) -> None:
    """Write a page as a whole or not at all."""
    # A file name or a label may have bytes that are no UTF-8.
    write_whole(Path(file), page.encode("utf-8", "backslashreplace"))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], kind: str = "numbers", caption: str = "") -> str:
    """``kind`` is the style: numbers, words or facts. Everything is escaped here."""
    head = "".join(f'<th scope="col">{escaped(column)}</th>' for column in columns)
    body = "\n".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="table"><table class="{kind}">'
        + (f"<caption>{escaped(caption)}</caption>" if caption else "")
        + (f"<thead><tr>{head}</tr></thead>" if columns else "")
        + f"<tbody>\n{body}\n</tbody></table></div>"
    )


def figure(svg: str, caption: str) -> str:
    """``caption`` is HTML."""
    return f"<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>"


def escaped(value: object) -> str:
    """Any text, to stand in HTML or SVG."""
    return html.escape(str(value))


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def interval(bounds: tuple[float, float] | None, scale: float = 1) -> str:
    return "" if bounds is None else f"{scale * bounds[0]:.2f} to {scale * bounds[1]:.2f}"
