"""Which parts of a transformer matter, measured on pictures or texts.

A linear layer's input channel c contributes E[x_c^2] * sum_i W_ic^2 to the energy of the layer's output: the squared
score of Wanda (Sun et al. 2023, "A simple and effective pruning approach for large language models", arXiv 2306.11695),
summed over the outputs. A neuron's importance is that of its channel into the perceptron's second layer, a head's the
sum over its channels into the output projection, a channel's of the residual stream the sum over all layers that read
it, each as a share of that layer's whole. Of queries and keys, whose products are the scores, it is E[q_c^2] E[k_c^2].
These are measures of what a part does, not of what the model would lose without it. Blocks are few enough to measure
that: 1 - cosine of the embeddings with and without the block, as Kim et al. 2024 (Shortened LLaMA, arXiv 2402.02834) do
with perplexity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.towers import ImageTower, TextTower, build_image_tower, build_text_tower

__all__ = ["Importance", "measure_importance", "measure_text_importance"]

TEXTS = 64  # in a batch


@dataclass(frozen=True, eq=False)
class Importance:
    """All float64, larger is more important. L layers, W width, M width of the perceptrons.

    ``blocks`` (L,); ``scores`` (L, W), of the channels of queries and keys; ``values`` (L, W), of those of values;
    ``neurons`` (L, M); ``readers`` (L, W), of the residual stream's channels as block L reads them, and ``projection``
    (W,) as the projection does.
    """

    blocks: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    neurons: npt.NDArray[np.float64]
    readers: npt.NDArray[np.float64]
    projection: npt.NDArray[np.float64]


def measure_importance(teacher: Checkpoint, batches: Iterable[npt.NDArray[np.uint8]]) -> Importance:
    """Run pixels (n, H, W, 3) uint8 through the teacher's image tower, a vision transformer with a class token.

    Raises UsageError if there are none.
    """
    tower = build_image_tower(teacher)
    assert isinstance(tower, ImageTower)
    inputs = [torch.from_numpy(pixels) for pixels in batches]
    if not inputs:
        raise UsageError("which parts of the teacher matter is measured on pictures, and there are none; add some")
    return _measure(tower, inputs)


def measure_text_importance(teacher: Checkpoint, tokens: npt.NDArray[np.int64]) -> Importance:
    """Run one text or more, token ids (N, context length), through the teacher's text tower, a causal transformer.

    Only tokens up to a text's end count: none of the others reaches an embedding.
    """
    tower = build_text_tower(teacher)
    assert isinstance(tower, TextTower)
    return _measure(tower, [torch.from_numpy(part) for part in np.array_split(tokens, -(-len(tokens) // TEXTS))])


def _measure(tower: ImageTower | TextTower, inputs: Sequence[torch.Tensor]) -> Importance:
    seen = _Seen(tower)
    embeds = []
    with torch.inference_mode():
        for batch in inputs:
            seen.counted = _counted(tower, batch)
            embeds.append(tower(batch))
        seen.remove()
        losses = [_loss_without(tower, block, inputs, torch.cat(embeds)) for block in range(len(tower.blocks))]
    blocks = [f"blocks.{index}" for index in range(len(tower.blocks))]
    readers = ("attn.query", "attn.key", "attn.value", "fc1")
    return Importance(
        blocks=np.array(losses),
        scores=np.stack([seen.outputs[f"{block}.attn.query"] * seen.outputs[f"{block}.attn.key"] for block in blocks]),
        values=np.stack([seen.energy(f"{block}.attn.out") for block in blocks]),
        neurons=np.stack([seen.energy(f"{block}.fc2") for block in blocks]),
        readers=np.stack([sum(_share(seen.energy(f"{block}.{name}")) for name in readers) for block in blocks]),
        projection=_share(seen.energy("projection")),
    )


def _counted(tower: ImageTower | TextTower, inputs: torch.Tensor) -> torch.Tensor | None:
    """bool (n, T), the tokens that an embedding depends on; None for all."""
    if isinstance(tower, ImageTower):
        return None
    return torch.arange(tower.config.tokens) <= tower.pooled_position(inputs)[:, None]


def _loss_without(
    tower: ImageTower | TextTower, block: int, inputs: Sequence[torch.Tensor], embeds: torch.Tensor
) -> float:
    """Mean of 1 - cosine between the tower's embeddings and those without one of its blocks."""
    whole = tower.blocks
    tower.blocks = nn.ModuleList(module for index, module in enumerate(whole) if index != block)
    cosines = (torch.cat([tower(batch) for batch in inputs]) * embeds).sum(dim=-1)
    tower.blocks = whole
    return 1 - float(cosines.mean())


def _share(energy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = energy.sum()
    return energy / total if total else energy


class _Seen:
    """Sums over the tokens that pass through a tower, all or those that are ``counted``; hooks collect them until
    ``remove``."""

    def __init__(self, tower: ImageTower | TextTower) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.counted: torch.Tensor | None = None
        self._layers = {name: module for name, module in tower.named_modules() if isinstance(module, nn.Linear)}
        self._handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()]

    def energy(self, name: str) -> npt.NDArray[np.float64]:
        """(inputs,): what each input channel of a layer contributes to its output."""
        weight = self._layers[name].weight.detach().double()
        energy: npt.NDArray[np.float64] = self.inputs[name] * weight.square().sum(dim=0).numpy()
        return energy

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            for sums, values in ((self.inputs, inputs[0]), (self.outputs, output)):
                squares = values.double().square()
                if self.counted is not None and squares.shape[:2] == self.counted.shape:
                    squares = squares[self.counted]  # a pooled token has another shape, and counts
                sums[name] = sums.get(name, 0.0) + squares.reshape(-1, squares.shape[-1]).sum(dim=0).numpy()

        return hook
