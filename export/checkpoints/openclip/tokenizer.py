"""The tokenizer that OpenCLIP and OpenAI's CLIP share, with the text rules of ``open_clip.tokenizer.SimpleTokenizer``.

It has CLIP's vocabulary, but neither the text rules nor the padding of transformers' CLIPTokenizer, so from the files
of one only vocabulary and merges are taken. A text is brought to Unicode's form NFC, loses control characters, has
its curly quotes made straight and is lower-cased; short texts are filled up with id 0, which is no token of its own
("!" inside a word), and of long ones the end-of-text token stays last.

Two things that open_clip does are not done here: HTML entities ("&amp;") stay as they are written, and of ftfy's
repairs (https://ftfy.readthedocs.io) only those named above are made, not those of full-width letters, ligatures and
text decoded in the wrong encoding.
"""

from __future__ import annotations

import gzip
import json
from itertools import chain
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.openclip.config import OpenClipModel

__all__ = ["read_openclip_tokenizer"]

START, END = "<start_of_text>", "<end_of_text>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

# What ftfy takes out, and what it makes straight.
CONTROLS = r"[\x00-\x08\x0B\x0E-\x1F\x7F\u206A-\u206F\uFEFF\uFFF9-\uFFFC]"
SINGLE_QUOTES, DOUBLE_QUOTES = r"[\u02BC\u2018-\u201B]", r"[\u201C-\u201F]"
# The one letter whose lower case depends on its place, which the library's Lowercase does not know.
FINAL_SIGMA = r"(?<=\p{L})Σ(?!\p{L})"

# OpenAI's vocabulary file: a line of comment, then merges, more of them than are used.
MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2

Bpe = tuple[dict[str, int], list[tuple[str, str]]]


def read_openclip_tokenizer(model: OpenClipModel, place: Path) -> bytes:
    """The bytes of a tokenizer.json that gives open_clip's ids, cut and padded to the context length.

    ``place``: a folder with tokenizer.json, with vocab.json and merges.txt, or with ``MERGES_FILE``; or one of these
    files. Raises CheckpointError when there is none, it is damaged, or its size is not that of the embedding table.
    """
    for key in ("hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"):
        if model.text.values.get(key):
            raise model.text.refuse(key, "nothing, which means CLIP's own tokenizer; export with --no-text")
    path = _find(place)
    try:
        vocabulary, merges = _read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: no tokenizer of CLIP's kind can be read from it ({error!r:.80})") from None
    expected = model.text.integer("vocab_size", 49408)
    if len(vocabulary) != expected or sorted(vocabulary.values()) != list(range(expected)):
        raise CheckpointError(
            f"{path}: the tokenizer has {len(vocabulary)} tokens, the model's embedding table {expected}; they belong "
            "to different models. Name the model's own with --tokenizer, or export with --no-text"
        )
    return _build(vocabulary, merges, model.text.integer("context_length", 77))


def _find(place: Path) -> Path:
    """The file to read; of vocab.json and merges.txt the former."""
    if place.is_file():
        return place
    for name in ("tokenizer.json", "vocab.json", MERGES_FILE):
        if (place / name).is_file():
            return place / name
    raise CheckpointError(
        f"{place}: expected tokenizer.json, vocab.json and merges.txt, or {MERGES_FILE}, found none of them; name one "
        "with --tokenizer, or export with --no-text"
    )


def _read(path: Path) -> Bpe:
    """Vocabulary and merges, the start and the end of a text last. Raises what damaged files make Python raise."""
    if path.name.endswith((".txt.gz", ".txt")):
        lines = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode().split("\n")
        return _of_merges([_pair(line) for line in lines[1 : MERGES + 1] if line])
    document = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "vocab.json":
        vocabulary = document
        lines = path.with_name("merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
    else:
        vocabulary = document["model"]["vocab"]
        merges = [_pair(merge) for merge in document["model"]["merges"]]
        vocabulary |= {token["content"]: token["id"] for token in document.get("added_tokens", [])}
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    # Files call these two differently; OpenAI's and open_clip's rule is that they are the last.
    *others, _, _ = by_id
    return {token: index for index, token in enumerate([*others, START, END])}, merges


def _pair(merge: str | list[str]) -> tuple[str, str]:
    first, second = merge.split() if isinstance(merge, str) else merge
    return first, second


def _of_merges(merges: list[tuple[str, str]]) -> Bpe:
    """OpenAI's order of ids: bytes, bytes that end a word, what the merges make, start and end of a text."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]
    tokens = chain(letters, (f"{letter}</w>" for letter in letters), map("".join, merges), (START, END))
    return {token: index for index, token in enumerate(tokens)}, merges


def _build(vocabulary: dict[str, int], merges: list[tuple[str, str]], context_length: int) -> bytes:
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    bpe = models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", continuing_subword_prefix="")
    tokenizer: Any = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(CONTROLS), ""),
            normalizers.Replace(Regex(SINGLE_QUOTES), "'"),
            normalizers.Replace(Regex(DOUBLE_QUOTES), '"'),
            normalizers.NFC(),
            normalizers.Replace(Regex(FINAL_SIGMA), "ς"),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    # Found inside texts, in any case, as open_clip finds them.
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=True) for token in (START, END)])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(length=context_length, pad_id=0, pad_token=tokenizer.id_to_token(0))
    document: str = tokenizer.to_str()
    return document.encode()
