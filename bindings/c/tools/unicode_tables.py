"""Write src/unicode_*.inc: what the `tokenizers` library knows of Unicode, asked code point by code point.

    python bindings/c/tools/unicode_tables.py

The library's parts follow different versions of Unicode (its regular expressions, its normalization, Rust's lower
case), and so does every system's ICU: only the library's own answers give its token ids. The tables change when it
moves to another version; tests/bindings/test_tokenizer.py then fails.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

SOURCES = Path(__file__).resolve().parents[1] / "src"
HANGUL = range(0xAC00, 0xD7A4)  # computed, not stored
WIDTH = 120

nfd, nfc, lower = (
    normalizers.NFD().normalize_str,
    normalizers.NFC().normalize_str,
    normalizers.Lowercase().normalize_str,
)


def code_points() -> Iterator[int]:
    return (code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)


def matching(pattern: str) -> list[int]:
    """The code points that a regular expression of one character matches."""
    split = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str
    return [code for code in code_points() if not split(chr(code))]


def ranges(codes: list[int], key: Callable[[int], int] = lambda code: 0) -> list[tuple[int, int, int]]:
    """(first, last, key) of neighbours with the same key."""
    grouped = groupby(enumerate(codes), lambda item: (item[1] - item[0], key(item[1])))
    runs = [(group_key[1], [code for _, code in group]) for group_key, group in grouped]
    return [(run[0], run[-1], value) for value, run in runs]


def stays(text: str) -> bool:
    return nfd(text) == text


def is_mark(mark: str) -> bool:
    """Whether the library sorts a code point, as it sorts those of the highest class (240) and the lowest (1)."""
    return stays(mark) and not (stays(f"a\u0345{mark}") and stays(f"a{mark}\u0334"))


def combining_classes() -> dict[int, int]:
    """The class of every code point that has one: that of the marks which it is not sorted before or behind.

    Python's own table names a mark of each class, of which the library has to know; its version may be an older one.
    """
    marks = [chr(code) for code in code_points() if is_mark(chr(code))]
    known = {unicodedata.combining(mark): mark for mark in reversed(marks)}
    known.pop(0, None)
    return {
        ord(mark): next(one for one, other in known.items() if stays(f"a{other}{mark}") and stays(f"a{mark}{other}"))
        for mark in marks
    }


def decompositions() -> list[tuple[int, int, int, int]]:
    """(code point, first, second or 0, whether the two compose): one step of each canonical decomposition."""
    whole = {code: nfd(chr(code)) for code in code_points() if code not in HANGUL}
    whole = {code: text for code, text in whole.items() if text != chr(code)}
    by_text = {text: code for code, text in reversed(whole.items()) if len(text) > 1}
    rows = []
    for code, text in whole.items():
        composes = len(text) > 1 and nfc(text) == chr(code)
        if len(text) == 1:
            rows.append((code, ord(text), 0, 0))
        else:
            head = text[:-1]
            shorter = nfc(head) if composes else head
            first = ord(shorter) if len(shorter) == 1 else by_text[head]
            rows.append((code, first, ord(text[-1]), int(composes)))
    return rows


def array(declaration: str, rows: list[tuple[int, ...]]) -> str:
    lines = [""]
    for row in rows:
        item = "{" + ",".join(f"0x{number:X}" if number > 9 else str(number) for number in row) + "},"
        if len(lines[-1]) + len(item) > WIDTH:
            lines.append("")
        lines[-1] += item
    return f"constexpr {declaration}[] = {{\n" + "\n".join(lines) + "\n};\n"


def write(name: str, *arrays: str) -> None:
    heading = f"// Written by tools/unicode_tables.py with tokenizers {tokenizers.__version__}.\n"
    (SOURCES / name).write_text(heading + "".join(arrays), encoding="ascii")


def main() -> None:
    classes = {"letters": r"\p{L}", "numbers": r"\p{N}", "spaces": r"\s"}
    write(
        "unicode_classes.inc",
        *(array(f"Range {name}", [row[:2] for row in ranges(matching(pattern))]) for name, pattern in classes.items()),
    )
    lowered = [(code, lower(chr(code))) for code in code_points() if lower(chr(code)) != chr(code)]
    write(
        "unicode_case.inc",
        array("Lower lower_case", [(code, *map(ord, text), *[0] * (2 - len(text))) for code, text in lowered]),
    )
    marks = combining_classes()
    write(
        "unicode_forms.inc",
        array("ClassRange combining_classes", list(ranges(sorted(marks), marks.__getitem__))),
        array("Decomposition decompositions", decompositions()),
    )


if __name__ == "__main__":
    main()
