"""Small files that the kernel makes, which may be missing, unreadable or gone the next moment."""

from __future__ import annotations

from pathlib import Path

__all__ = ["number_in", "text_of"]


def text_of(path: Path) -> str | None:
    """The file's text without the space around it, or None if there is none. Device trees end theirs with a zero."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip(" \t\r\n\0")
    except OSError:
        return None


def number_in(path: Path) -> int | None:
    """The one integer that the file holds, or None."""
    try:
        return int(text_of(path) or "")
    except ValueError:
        return None
