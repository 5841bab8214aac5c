"""SigLIP's tokenizers: a unigram model (Kudo 2018, arXiv 1804.10959) for SigLIP, Gemma's byte pairs for SigLIP 2.

Neither puts a start token in front of a text. The towers pool the last place of the context, whatever stands there, so
all that counts is that every place holds what the library of origin puts there: the same text rules, and padding on
the same side. What transformers does beyond what tokenizer.json says depends on the class that tokenizer_config.json
names; OpenCLIP does its own cleaning in front of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.openclip.tokenizer import CONTROLS, DOUBLE_QUOTES, FINAL_SIGMA, SINGLE_QUOTES
from clipedge.export.checkpoints.sections import read_json
from clipedge.export.checkpoints.tokenizer import parse_tokenizer, read_pad_token
from clipedge.text import bake_tokenizer

__all__ = ["read_openclip_siglip_tokenizer", "read_siglip_tokenizer"]

PUNCTUATION = r"[!-/:-@\[-`{-~]"  # ASCII's, all of it
WHITE_SPACE = r"[\s\x1c-\x1f]+"  # what Python's str.isspace says, which the rules were written with
# What sentencepiece drops: white space at the end, and what its normalisation makes such ("\u2581" is its space).
TRAILING = r"[ \u2581]+$"


@dataclass(frozen=True)
class _Kind:
    """A tokenizer class of transformers: what it does where tokenizer_config.json says nothing."""

    pad_token: str
    padding_side: str


KINDS: Mapping[str, _Kind] = {
    "SiglipTokenizer": _Kind("</s>", "right"),
    "T5Tokenizer": _Kind("<pad>", "right"),
    "GemmaTokenizer": _Kind("<pad>", "left"),
    "Siglip2Tokenizer": _Kind("<pad>", "left"),
    "PreTrainedTokenizer": _Kind("<pad>", "right"),
    "TokenizersBackend": _Kind("<pad>", "right"),
}

Rules = list[Any]  # of tokenizers.normalizers
# (the class, the file's own rules) -> all rules
ExtendRules = Callable[[str, Rules], Rules]


def read_siglip_tokenizer(place: Path, context_length: int, vocab_size: int) -> bytes:
    """The tokenizer.json at ``place`` or in it, made to treat, cut and pad every text as transformers does.

    Raises CheckpointError when it is missing, damaged, of a class that SigLIP does not have, or has ids beyond
    ``vocab_size``.
    """
    from tokenizers import normalizers

    lower = _read_config(_folder(place)).get("do_lower_case", True)

    def extend(name: str, rules: Rules) -> Rules:
        if name == "SiglipTokenizer":
            lowered = _python_lower() if lower else []
            return [*lowered, *_canonical(), *rules, *_replacing((TRAILING, ""))]
        return [normalizers.Lowercase(), *rules] if name == "Siglip2Tokenizer" else rules

    return _read(place, context_length, vocab_size, extend)


def read_openclip_siglip_tokenizer(place: Path, context_length: int, vocab_size: int) -> bytes:
    """The tokenizer.json at ``place`` or in it, behind OpenCLIP's cleaning ("canonicalize").

    Of that as much is done as for CLIP's tokenizer (``clipedge.export.checkpoints.openclip.tokenizer``). Raises as
    ``read_siglip_tokenizer``.
    """

    def extend(name: str, rules: Rules) -> Rules:
        straight = ((CONTROLS, ""), (SINGLE_QUOTES, "'"), (DOUBLE_QUOTES, '"'), ("_", " "))
        return [*_replacing(*straight), *_canonical(), *_python_lower(), *rules]

    return _read(place, context_length, vocab_size, extend)


def _read(place: Path, context_length: int, vocab_size: int, extend: ExtendRules) -> bytes:
    from tokenizers import normalizers

    folder = _folder(place)
    path, config = place if place.is_file() else folder / "tokenizer.json", _read_config(folder)
    if not path.is_file():
        raise _no_tokenizer(folder)
    name = str(config.get("tokenizer_class") or "SiglipTokenizer").removesuffix("Fast")
    if name not in KINDS:
        raise CheckpointError(f"{folder}: tokenizer_class is {name!r}; expected {', '.join(KINDS)}")
    side = config.get("padding_side", KINDS[name].padding_side)
    if side not in ("left", "right"):
        raise CheckpointError(f"{folder}: padding_side is {side!r}; expected 'left' or 'right'")
    tokenizer = parse_tokenizer(path)
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
    if highest >= vocab_size:
        raise CheckpointError(
            f"{path} has token ids up to {highest}, the model's embedding table {vocab_size} rows; they belong to "
            "different models. Name the model's own with --tokenizer, or export with --no-text"
        )
    tokenizer.normalizer = normalizers.Sequence(extend(name, [tokenizer.normalizer] if tokenizer.normalizer else []))
    document, pad_token = tokenizer.to_str().encode(), read_pad_token(folder, KINDS[name].pad_token)
    return bake_tokenizer(document, context_length, pad_token, pads_left=side == "left", needs_end=False)


def _folder(place: Path) -> Path:
    return place.parent if place.is_file() else place


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _no_tokenizer(folder: Path) -> CheckpointError:
    if (folder / "spiece.model").is_file():
        return CheckpointError(
            f"{folder} has its tokenizer as spiece.model only, expected tokenizer.json too; where sentencepiece is "
            "installed, transformers.T5TokenizerFast.from_pretrained(folder, extra_ids=0).save_pretrained(other) "
            "makes one: copy it from there, that file alone. Or export with --no-text"
        )
    return CheckpointError(
        f"{folder} has no tokenizer.json; copy it from the checkpoint's source, or export with --no-text"
    )


def _canonical() -> Rules:
    """No punctuation, words with one space between them: how SigLIP's texts were prepared."""
    from tokenizers import normalizers

    return [*_replacing((PUNCTUATION, ""), (WHITE_SPACE, " ")), normalizers.Strip()]


def _python_lower() -> Rules:
    """Python's lower case, which differs from the library's in one letter."""
    from tokenizers import normalizers

    return [*_replacing((FINAL_SIGMA, "ς")), normalizers.Lowercase()]


def _replacing(*pairs: Sequence[str]) -> Rules:
    from tokenizers import Regex, normalizers

    return [normalizers.Replace(Regex(pattern), content) for pattern, content in pairs]
