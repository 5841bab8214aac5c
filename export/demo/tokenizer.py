"""The demonstration checkpoint's tokenizer: a small byte-level BPE with exactly CLIP's conventions.

Lower case, NFC, collapsed white space, CLIP's word pattern, `</w>` at the end of a word. The 256 byte units and their
end-of-word forms come first in the vocabulary, as in CLIP's, so that any string can be encoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from clipedge.export.checkpoints.tokenizer import END, START, clip_tokenizer, with_clip_text_rules

__all__ = ["END", "START", "train_tokenizer"]

_WORD_END = "</w>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges from texts and returns the finished tokenizer, of at most ``vocab_size`` tokens."""
    byte_units = sorted(pre_tokenizers.ByteLevel.alphabet())
    units = [*byte_units, *(unit + _WORD_END for unit in byte_units)]
    learner = with_clip_text_rules(Tokenizer(models.BPE(end_of_word_suffix=_WORD_END)))
    trainer = trainers.BpeTrainer(
        # Its own alphabet is smaller than ours (no unused end-of-word forms): allow for the difference, cut below.
        vocab_size=vocab_size,
        initial_alphabet=byte_units,
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learned = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    merges = learned[: vocab_size - len(units) - 2]
    # Two merges may give the same token: it keeps one number.
    tokens = dict.fromkeys([*units, *(left + right for left, right in merges), START, END])
    return _finish({token: number for number, token in enumerate(tokens)}, merges)


def _finish(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    bpe = models.BPE(
        vocab=vocab,
        merges=merges,
        unk_token=END,
        continuing_subword_prefix="",
        end_of_word_suffix=_WORD_END,
        fuse_unk=False,
    )
    tokenizer: Tokenizer = clip_tokenizer(bpe)
    tokenizer.add_special_tokens([START, END])
    return tokenizer
