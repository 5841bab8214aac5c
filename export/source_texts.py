"""The source model's text side, for prompt banks and for the proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from clipedge.export.checkpoints import Checkpoint
from clipedge.export.proof import Encoder, source_encoder
from clipedge.export.streams import BATCH
from clipedge.export.towers import AnyTextTower, build_text_tower
from clipedge.text import Tokenizer

__all__ = ["SourceTexts"]


@dataclass(frozen=True)
class SourceTexts:
    """Tokenizer and torch tower, read when used: an image tower alone is exported without either."""

    checkpoint: Checkpoint

    @cached_property
    def tower(self) -> AnyTextTower:
        return build_text_tower(self.checkpoint)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(self.checkpoint.tokenizer_json, self.checkpoint.text.context_length)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts (N, D) with the source model."""
        return self.encode_with(source_encoder(self.tower), texts)

    def encode_with(self, encoder: Encoder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts (N, D), tokenized as the source model does it, with either model's text tower."""
        tokens = self.tokenizer(texts)
        return np.concatenate([encoder(tokens[i : i + BATCH]) for i in range(0, len(tokens), BATCH)])
