"""SigLIP's tokenizers: a unigram model (Kudo 2018, arXiv 1804.10959) for SigLIP, Gemma's byte pairs for SigLIP 2.

Neither puts a start token in front of a text. The towers pool the last place of the context, whatever stands there, so
all that counts is that every place holds what the model was trained with: the same text rules, and padding on the same
side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.sections import read_json
from clipedge.export.checkpoints.tokenizer import parse_tokenizer, read_pad_token
from clipedge.text import bake_tokenizer

__all__ = ["canonical_text", "read_siglip_tokenizer"]

PUNCTUATION = r"[!-/:-@\[-`{-~]"  # ASCII's, all of it
WHITE_SPACE = r"[\s\x1c-\x1f]+"  # what Python's str.isspace says, which the rules were written with
WORD_START = "\u2581"  # sentencepiece's mark, instead of the space in front of a word


@dataclass(frozen=True)
class _Kind:
    """What a tokenizer class of transformers does beyond what tokenizer.json says."""

    pad_token: str
    pads_left: bool


KINDS: Mapping[str, _Kind] = {
    "SiglipTokenizer": _Kind("</s>", pads_left=False),
    "GemmaTokenizer": _Kind("<pad>", pads_left=True),
    "Siglip2Tokenizer": _Kind("<pad>", pads_left=True),
}


def read_siglip_tokenizer(folder: Path, context_length: int) -> bytes:
    """The folder's tokenizer.json, made to treat, cut and pad every text as transformers does.

    Raises CheckpointError when it is missing or damaged, or of a class that SigLIP does not have.
    """
    path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not path.is_file():
        raise _no_tokenizer(folder)
    config = read_json(config_path) if config_path.is_file() else {}
    name = str(config.get("tokenizer_class") or "SiglipTokenizer").removesuffix("Fast")
    if name not in KINDS:
        raise CheckpointError(f"{config_path}: tokenizer_class is {name!r}; expected {', '.join(KINDS)}")
    side = config.get("padding_side", "left" if KINDS[name].pads_left else "right")
    if side not in ("left", "right"):
        raise CheckpointError(f"{config_path}: padding_side is {side!r}; expected 'left' or 'right'")
    document = _with_text_rules(path, name, lower=bool(config.get("do_lower_case", True)))
    pad_token = read_pad_token(folder, KINDS[name].pad_token)
    return bake_tokenizer(document, context_length, pad_token, pads_left=side == "left", needs_end=False)


def _no_tokenizer(folder: Path) -> CheckpointError:
    if (folder / "spiece.model").is_file():
        return CheckpointError(
            f"{folder} has its tokenizer as spiece.model only, expected tokenizer.json; make one where sentencepiece "
            "is installed (transformers.T5TokenizerFast.from_pretrained(folder).save_pretrained(folder)), or export "
            "with --no-text"
        )
    return CheckpointError(
        f"{folder} has no tokenizer.json; copy it from the checkpoint's source, or export with --no-text"
    )


def _with_text_rules(path: Path, name: str, lower: bool) -> bytes:
    """The tokenizer.json at ``path`` with the rules for texts that the class ``name`` of transformers has besides."""
    from tokenizers import Regex, normalizers

    tokenizer = parse_tokenizer(path)
    rules = [tokenizer.normalizer] if tokenizer.normalizer else []
    if name == "SiglipTokenizer":
        # sentencepiece drops white space at the end, and what its normalisation makes such.
        trailing = normalizers.Replace(Regex(f"[ {WORD_START}]+$"), "")
        rules = [*canonical_text(lower), *rules, trailing]
    elif name == "Siglip2Tokenizer":
        rules = [normalizers.Lowercase(), *rules]
    tokenizer.normalizer = normalizers.Sequence(rules)
    document: str = tokenizer.to_str()
    return document.encode()


def canonical_text(lower: bool) -> list[Any]:
    """The normalizers that make a text what SigLIP was trained with: no punctuation, words with one space between."""
    from tokenizers import Regex, normalizers

    rules = [
        normalizers.Replace(Regex(PUNCTUATION), ""),
        normalizers.Replace(Regex(WHITE_SPACE), " "),
        normalizers.Strip(),
    ]
    return [normalizers.Lowercase(), *rules] if lower else rules
