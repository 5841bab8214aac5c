"""The source model's towers, each with the streams and facts that its conversion needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from clipedge.calibration.observe import WeighTokens
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.convert import SourceTower
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.material import Material
from clipedge.export.source_texts import SourceTexts
from clipedge.export.streams import PixelStream, TokenStream
from clipedge.export.towers import (
    AnyImageTower,
    AnyTextTower,
    ImageTower,
    TextTower,
    TracedImageTower,
    TracedTextTower,
    build_image_tower,
)
from clipedge.export.towers.text import hidden_keys

__all__ = ["image_source", "text_source"]


def image_source(checkpoint: Checkpoint, calibration: PixelStream, proof: PixelStream) -> SourceTower:
    tower = build_image_tower(checkpoint)
    return SourceTower(
        name="image",
        module=tower,
        write_graph=lambda path: write_image_graph(tower, path),
        weigh=_weigh_image(tower),
        calibration=calibration,
        proof=proof,
        pixel_mean=[255 * mean for mean in checkpoint.preprocessing.mean],
    )


def text_source(texts: SourceTexts, material: Material) -> SourceTower:
    return SourceTower(
        name="text",
        module=texts.tower,
        write_graph=lambda path: write_text_graph(texts.tower, path),
        weigh=_weigh_text(texts.tower),
        calibration=TokenStream(material.calibration_texts, texts.tokenizer, "calibrating the text tower"),
        proof=TokenStream(material.proof_texts, texts.tokenizer, "proving the text tower"),
    )


def _weigh_image(tower: AnyImageTower) -> WeighTokens:
    if isinstance(tower, TracedImageTower):
        return _Positions(1)  # what its layers' rows are is not known: all of a picture's count alike
    if isinstance(tower, ImageTower) and tower.config.pool == "class":
        return _ImageTokens(tower.config.tokens)
    return _Positions(tower.config.tokens)


def _weigh_text(tower: AnyTextTower) -> WeighTokens:
    return _Seen(tower.config.pad_token_id) if isinstance(tower, TracedTextTower) else _TextTokens(tower)


@dataclass(frozen=True, eq=False)
class _ImageTokens:
    """The class token, which is pooled, counts as much as all patches together."""

    tokens: int

    def __call__(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        weights = np.ones((len(pixels), self.tokens))
        weights[:, 0] = self.tokens - 1
        return weights


@dataclass(frozen=True, eq=False)
class _Positions:
    """All positions count alike."""

    tokens: int

    def __call__(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.ones((len(pixels), self.tokens))


@dataclass(frozen=True, eq=False)
class _TextTokens:
    """The token that is pooled counts as much as all others that it sees together."""

    tower: TextTower

    def __call__(self, input_ids: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        pooled = self.tower.pooled_position(torch.from_numpy(input_ids)).numpy()[:, None]
        places = np.arange(self.tower.config.tokens)[None]
        seen = places < pooled if self.tower.config.causal else places != pooled
        if self.tower.config.class_token:
            seen = seen & (hidden_keys(torch.from_numpy(input_ids))[:, 0, 0].numpy() == 0)
        return np.where(places == pooled, np.maximum(seen.sum(axis=1, keepdims=True), 1), seen).astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Seen:
    """All tokens but the padding count alike: which of them is pooled is not known."""

    pad_token_id: int

    def __call__(self, input_ids: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return np.asarray(input_ids != self.pad_token_id, np.float64)
