"""Token ids of libclipedge against the `tokenizers` library, on 2,000 strings, for both kinds of text rules."""

from __future__ import annotations

import json
import random
import shutil
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from native import UNSUPPORTED, USAGE, Native, NativeError, NativeModel

from clipedge.bundle import sha256_of
from clipedge.export.checkpoints.openclip.tokenizer import _build as build_openclip
from clipedge.text import Tokenizer, TruncatedTextWarning

CONTEXT_LENGTH = 32  # the demonstration model's
FRAGMENTS = [
    *["a", "photo", "of", "the", "red", "Cat", "DOG", "it's", "don't", "WE'LL", "they've", "I'm", "'Re", "'S", "''ll"],
    *["café", "cafe\u0301", "Å", "A\u030a", "\ufb01", "İ", "ß", "ẞ", "ΣΊΣΥΦΟΣ", "ΑΣ ", "\u01c5", "q\u0307\u0323"],
    *["привет", "שלום", "مرحبا", "नमस्ते", "ไทย", "漢字", "한글", "\u1112\u1161\u11ab", "\u1112\u1161", "\U0001d15e"],
    *[
        "😀",
        "👍🏽",
        "👩\u200d👩\u200d👧",
        "🇩🇪",
        "❤\ufe0f",
        "☃",
        "№",
        "½",
        "Ⅷ",
        "٣",
        "42",
        "1,000.5",
        "\u0344",
        "\u2126",
    ],
    *["\x07", "\x1b[31m", "\x7f", "\x85", "\u00ad", "\u200b", "\u202e", "\ufeff", "\ufffd", "\ue000", "\u206a"],
    *[" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2028", "\u3000", "\x1c", "\u180e"],
    *["<|endoftext|>", "<|startoftext|>", "<|ENDOFTEXT|>", "<|StartOfText|>", "<end_of_text>", "<START_of_text>"],
    *[
        "!",
        "!!!",
        "...",
        "-",
        "_",
        "#tag",
        "&amp;",
        "'",
        "\u2018s",
        "\u201c",
        "\u201d",
        '"',
        "\\",
        "{}",
        "!<|STARTOFTEXT|>!",
    ],
]


def strings(count: int) -> Iterator[str]:
    rng = random.Random(11)
    codes = [*range(1, 0xD800), *range(0xE000, sys.maxunicode + 1)]
    marks = [code for code in range(0x300, 0x1E000) if unicodedata.combining(chr(code))]
    for number in range(count):
        pieces = []
        for _ in range(rng.choice([0, 1, 2, 5, 12, 30])):
            pieces.append(rng.choice(FRAGMENTS) if rng.random() < 0.7 else chr(rng.choice(codes)))
            pieces += [chr(rng.choice(marks)) for _ in range(rng.choice([0, 0, 0, 1, 3]))]
            pieces.append(rng.choice(["", " ", " ", "  "]))
        text = "".join(pieces)
        yield unicodedata.normalize("NFD", text) if number % 5 == 0 else text


def with_tokenizer(bundle: Path, folder: Path, document: bytes) -> Path:
    """A copy of a bundle with another tokenizer.json, which its manifest agrees with."""
    shutil.copytree(bundle, folder)
    (folder / "tokenizer.json").write_bytes(document)
    manifest = json.loads((folder / "clipedge.json").read_text())
    for entry in manifest["files"]:
        entry["sha256"] = sha256_of(folder / entry["path"])
    (folder / "clipedge.json").write_text(json.dumps(manifest))
    return folder


def openclip_tokenizer(document: bytes) -> bytes:
    """The same vocabulary with OpenCLIP's text rules."""
    model = json.loads(document)["model"]
    *tokens, _, _ = sorted(model["vocab"], key=model["vocab"].__getitem__)
    vocabulary = {token: number for number, token in enumerate([*tokens, "<start_of_text>", "<end_of_text>"])}
    return build_openclip(vocabulary, [tuple(merge) for merge in model["merges"]], CONTEXT_LENGTH)


@pytest.fixture(params=["transformers", "open_clip"])
def both(
    request: pytest.FixtureRequest, native: Native, demo_bundle_fp32: Path, tmp_path: Path
) -> Iterator[tuple[NativeModel, Tokenizer]]:
    document = (demo_bundle_fp32 / "tokenizer.json").read_bytes()
    if request.param == "open_clip":
        document = openclip_tokenizer(document)
    model = native.load(with_tokenizer(demo_bundle_fp32, tmp_path / "bundle", document))
    yield model, Tokenizer.from_file(document, CONTEXT_LENGTH)
    model.free()


def test_token_ids_of_2000_strings(both: tuple[NativeModel, Tokenizer]) -> None:
    model, tokenizer = both
    texts = [text for text in strings(2000) if "\0" not in text]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        expected = tokenizer(texts)
    wrong = [
        (text, found)
        for text, ids in zip(texts, expected.tolist(), strict=True)
        if (found := model.tokenize(text.encode())[0]) != ids
    ]
    assert not wrong, f"{len(wrong)} of {len(texts)}, such as {wrong[0]}"


def test_every_character_by_itself_and_behind_a_letter(native_fp32: NativeModel, demo_bundle_fp32: Path) -> None:
    """Letters, numbers, white space, lower case and normalization, of all of Unicode in steps."""
    tokenizer = Tokenizer.from_file(demo_bundle_fp32 / "tokenizer.json", CONTEXT_LENGTH)
    codes = [
        *range(1, 0x3400),
        *range(0xA000, 0xAC00),
        *range(0xF900, 0x20000, 3),
        *range(0x20000, sys.maxunicode, 997),
    ]
    texts = [f"a{chr(code)}1{chr(code)}\u0301" for code in codes]
    expected = tokenizer(texts)
    wrong = [
        hex(code)
        for code, text, ids in zip(codes, texts, expected.tolist(), strict=True)
        if native_fp32.tokenize(text.encode())[0] != ids
    ]
    assert not wrong


def test_what_is_lost_is_counted(native_fp32: NativeModel) -> None:
    assert native_fp32.tokenize(b"! " * 30)[1] == 0
    assert native_fp32.tokenize(b"! " * 37)[1] == 7


@pytest.mark.parametrize("text", [b"\xff", b"a\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"caf\xc3"])
def test_a_text_that_is_no_utf8_is_refused(native_fp32: NativeModel, text: bytes) -> None:
    with pytest.raises(NativeError, match="UTF-8") as error:
        native_fp32.tokenize(text)
    assert error.value.status == USAGE


def test_a_tokenizer_of_another_kind_is_refused(native: Native, demo_bundle_fp32: Path, tmp_path: Path) -> None:
    document = json.loads((demo_bundle_fp32 / "tokenizer.json").read_text())
    document["normalizer"]["normalizers"].append({"type": "Strip", "strip_left": True, "strip_right": True})
    model = native.load(with_tokenizer(demo_bundle_fp32, tmp_path / "bundle", json.dumps(document).encode()))
    with pytest.raises(NativeError, match="no text rule Strip") as error:
        model.tokenize(b"a")
    assert error.value.status == UNSUPPORTED
    model.free()
