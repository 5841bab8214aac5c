"""Prompt templates, and texts -> token ids."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipedge.errors import BundleError, CheckpointError, ClipEdgeError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["DEFAULT_TEMPLATES", "Tokenizer", "TruncatedTextWarning", "bake_tokenizer", "fill_template"]

DEFAULT_TEMPLATES = ("a photo of a {}.",)

_PLACEHOLDER = "{}"
_QUOTED_CHARACTERS = 80


class TruncatedTextWarning(UserWarning):
    """A text had more tokens than the model reads; the message quotes what was cut off."""


def fill_template(template: str, label: str) -> str:
    """Put the label where the template says ``{}``. Nothing else is interpreted, in neither of them.

    Raises UsageError unless the template contains ``{}`` exactly once.
    """
    _check_text(template, "a template")
    _check_text(label, "a label")
    count = template.count(_PLACEHOLDER)
    if count != 1:
        raise UsageError(
            f"a template contains {{}} exactly once, for the label; {template!r} contains it {count} times. "
            'Write it like "a photo of a {}."'
        )
    return template.replace(_PLACEHOLDER, label)


@dataclass(frozen=True)
class Tokenizer:
    """A bundle's tokenizer. Token ids equal those of the source model's own tokenizer."""

    context_length: int
    _backend: Any  # tokenizers.Tokenizer, which is imported when used

    @classmethod
    def from_file(cls, source: str | os.PathLike[str] | bytes, context_length: int) -> Tokenizer:
        """Read tokenizer.json, as a path or as its bytes.

        Raises BundleError when it is missing, damaged, or does not cut and pad to ``context_length`` (which
        ``bake_tokenizer`` makes it do), MissingDependencyError when the tokenizers library is not installed.
        """
        if isinstance(source, bytes):
            document = source
        else:
            try:
                document = Path(source).read_bytes()
            except OSError as error:
                raise BundleError(
                    f"{os.fspath(source)}: the tokenizer cannot be read ({error.strerror}); export the bundle again"
                ) from None
        backend = _parse(document, BundleError, "export the bundle again")
        cut, pad = backend.truncation, backend.padding
        lengths = cut and cut["max_length"], pad and pad["length"]
        if lengths != (context_length, context_length):
            raise BundleError(
                f"expected a tokenizer.json that cuts and pads to {context_length} tokens, found {lengths[0]} and "
                f"{lengths[1]}; export the bundle again"
            )
        return cls(context_length, backend)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids, int64 of shape (N, context_length).

        A text with too many tokens loses its end; the end-of-text token stays last, and a TruncatedTextWarning
        quotes what was lost. Raises UsageError for anything but a sequence of strings.
        """
        if isinstance(texts, str):
            raise UsageError(f"expected a list of texts, found one text; write [{texts[:40]!r}]")
        texts = list(texts)
        for index, text in enumerate(texts):
            _check_text(text, f"texts[{index}]")
        encodings = self._backend.encode_batch(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            if encoding.overflowing:
                _warn_truncated(text, encoding, self.context_length)
        ids = [encoding.ids for encoding in encodings]
        return np.array(ids, np.int64).reshape(len(texts), self.context_length)


def bake_tokenizer(
    tokenizer_json: bytes, context_length: int, pad_token: str, pads_left: bool = False, needs_end: bool = True
) -> bytes:
    """The same tokenizer, made to cut and pad every text to ``context_length`` tokens. Used at export.

    Raises CheckpointError when it is damaged, when it has no ``pad_token``, or when it ``needs_end`` (the tower looks
    for the end of the text) and does not put a start and an end token around a text.
    """
    backend = _parse(tokenizer_json, CheckpointError, "fetch the checkpoint again")
    pad_id = backend.token_to_id(pad_token)
    if pad_id is None:
        raise CheckpointError(
            f"the checkpoint pads texts with {pad_token!r}, which its tokenizer.json does not contain; "
            "correct pad_token in tokenizer_config.json"
        )
    backend.no_truncation()
    backend.no_padding()
    around = backend.encode("").tokens
    if needs_end and len(around) != 2:
        raise CheckpointError(
            f"expected a tokenizer that adds a start and an end token to a text, found {around}; "
            "only tokenizers of CLIP's convention are supported"
        )
    if pad_token not in {token.content for token in backend.get_added_tokens_decoder().values()}:
        backend.add_special_tokens([pad_token])  # transformers does, and so finds it inside texts as well
    backend.enable_truncation(context_length)
    side = "left" if pads_left else "right"
    backend.enable_padding(length=context_length, pad_id=pad_id, pad_token=pad_token, direction=side)
    baked: str = backend.to_str()
    return baked.encode()


def _parse(tokenizer_json: bytes, damaged: type[ClipEdgeError], advice: str) -> Any:
    """A tokenizers.Tokenizer, or the error ``damaged``."""
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError:
        raise MissingDependencyError(
            'texts need the tokenizers library; install it with pip install "clipedge[text]", '
            "or use a saved prompt bank, which needs none"
        ) from None
    try:
        json.loads(tokenizer_json)  # says better than the library what is wrong, and where
        return Backend.from_str(tokenizer_json.decode())
    except Exception as error:  # the library raises bare Exception
        raise damaged(f"tokenizer.json is damaged ({error}); {advice}") from None


def _check_text(text: object, name: str) -> None:
    if not isinstance(text, str):
        raise UsageError(f"expected {name} to be a string, found {type(text).__name__}: {text!r:.60}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{name} contains half of a surrogate pair, which is no character: {text!r:.60}; decode its source as UTF-8"
        ) from None


def _warn_truncated(text: str, encoding: Encoding, context_length: int) -> None:
    lost = encoding.overflowing[0]
    start = next(
        begin for (begin, _), special in zip(lost.offsets, lost.special_tokens_mask, strict=True) if not special
    )
    quoted = text[start:].strip()
    if len(quoted) > _QUOTED_CHARACTERS:
        quoted = quoted[:_QUOTED_CHARACTERS] + "..."
    warnings.warn(
        f"a text is longer than the {context_length} tokens that the model reads; this part was cut off: {quoted!r}",
        TruncatedTextWarning,
        stacklevel=3,
    )
