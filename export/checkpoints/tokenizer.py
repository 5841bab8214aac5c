"""A CLIP checkpoint's tokenizer as one tokenizer.json, whatever files it came in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError

__all__ = [
    "END",
    "START",
    "clip_tokenizer",
    "load_tokenizer_json",
    "parse_tokenizer",
    "read_pad_token",
    "with_clip_text_rules",
]

START, END = "<|startoftext|>", "<|endoftext|>"

# CLIP's words, as transformers 5 writes them.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def load_tokenizer_json(folder: Path) -> bytes:
    """The bytes of the folder's tokenizer.json, or the same built from vocab.json and merges.txt (older folders).

    Neither cuts nor pads: ``clipedge.text.bake_tokenizer`` adds that, with ``read_pad_token``'s token.
    Raises CheckpointError when the files are missing or damaged.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes()
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: expected tokenizer.json, or vocab.json and merges.txt, found no tokenizer.json and no "
            f"{' and no '.join(missing)}; copy them from the checkpoint's source, or export with --no-text"
        )
    return _build_clip_tokenizer(folder)


def parse_tokenizer(path: Path) -> Any:
    """The ``tokenizers.Tokenizer`` in a tokenizer.json. Raises CheckpointError when it is damaged."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} is damaged ({error}); fetch the checkpoint again") from None


def read_pad_token(folder: Path, default: str = END) -> str:
    """The token that fills up short texts, read where transformers reads it; ``default``, CLIP's, when unnamed.

    special_tokens_map.json wins over tokenizer_config.json, unless the latter lists its added tokens itself.
    """
    token = _special_tokens(folder).get("pad_token")
    if token is None:
        return default
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise CheckpointError(f"{folder}: pad_token is not a string but {content!r}; correct tokenizer_config.json")
    return content


def _build_clip_tokenizer(folder: Path) -> bytes:
    """What transformers' CLIPTokenizer builds of these two files."""
    from tokenizers import models

    try:
        vocab, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
        bpe = models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=END,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(
            f"{folder}: vocab.json and merges.txt do not fit together or are damaged ({error}); fetch them again"
        ) from None
    absent = [token for token in (START, END) if token not in vocab]
    if absent:
        raise CheckpointError(
            f"{folder}: vocab.json lacks {' and '.join(absent)}; only tokenizers of CLIP's convention are supported"
        )
    tokenizer = clip_tokenizer(bpe)
    _add_special_tokens(tokenizer, _special_tokens(folder))
    document: str = tokenizer.to_str()
    return document.encode()


def clip_tokenizer(bpe: Any) -> Any:
    """A ``tokenizers.Tokenizer`` around a BPE model: CLIP's text rules, start and end token around a text."""
    from tokenizers import Tokenizer, processors

    tokenizer = with_clip_text_rules(Tokenizer(bpe))
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, tokenizer.token_to_id(END)),
        (START, tokenizer.token_to_id(START)),
        trim_offsets=False,
        add_prefix_space=False,
    )
    return tokenizer


def with_clip_text_rules(tokenizer: Any) -> Any:
    """Set what transformers' CLIPTokenizer does to a text before BPE: NFC, white space collapsed, lower case, words."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_special_tokens(tokenizer: Any, tokens: dict[str, Any]) -> None:
    """Special tokens are recognised inside a text; "normalized" says whether in any case ("<|EndOfText|>")."""
    from tokenizers import AddedToken

    defaults = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    for name, default in defaults.items():
        token = tokens.get(name) or default
        if isinstance(token, dict):
            flags = {key: bool(token.get(key)) for key in ("single_word", "lstrip", "rstrip", "normalized")}
            token = AddedToken(token["content"], special=True, **flags)
        # Of two that name one token the later counts, as in transformers.
        tokenizer.add_special_tokens([token])


def _special_tokens(folder: Path) -> dict[str, Any]:
    """bos_token, eos_token and so on, each a string or an object with "content" and flags."""
    config = _read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        return {**config, **_read_json(folder / "special_tokens_map.json")}
    flagged = {token["content"]: token for token in config["added_tokens_decoder"].values()}
    return {
        name: flagged.get(token, token) if isinstance(token, str) else token
        for name, token in config.items()
        if name.endswith("_token")
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); fetch the file again") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(document).__name__}; fetch it again")
    return document
