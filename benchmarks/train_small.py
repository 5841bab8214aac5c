"""Training a model of any family on rendered scenes, to the size and for the time of a demonstration.

The parts are those of the demonstration checkpoint (``clipedge.export.demo``): its scenes, its optimizers, its learning
rate. A family gives a ``Trainee``: the model, its tokenizer, its loss, and how its origin's library saves it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures
from clipedge.export.demo.muon import Muon
from clipedge.export.demo.pool import Pool, batches
from clipedge.export.demo.train import Recipe, learning_rate

IMAGE_SIZE = 64
CONTEXT_LENGTH = 32

# The transformer blocks as transformers and OpenCLIP name them: Muon is for hidden matrices.
_IN_BLOCKS = re.compile(r"\.(layers|resblocks)\.")


@dataclass(frozen=True, eq=False)
class Trainee:
    """A model in training.

    ``tokenizer`` pads every text to the context. ``embed_images`` takes pictures as they are drawn, uint8 (N, H, W, 3),
    ``embed_texts`` token ids, int64 (N, L); both return L2-normalised float32 (N, D). ``loss`` is of N such pairs and
    the token ids. ``save`` writes a checkpoint folder.
    """

    model: torch.nn.Module
    tokenizer: Tokenizer
    embed_images: Callable[[NDArray[np.uint8]], torch.Tensor]
    embed_texts: Callable[[torch.Tensor], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    save: Callable[[Path], None]


@dataclass(frozen=True)
class Training:
    """What a training took, and the zero-shot top-1 in percent that it came to on scenes of the split "validation"."""

    parameters: int
    steps: int
    batch_size: int
    scenes: int
    minutes: float
    validation_accuracy: float


def train(trainee: Trainee, pool: Pool, recipe: Recipe) -> Training:
    """Trains in place, from the weights that the model has; prints a line for each report."""
    token_ids = encode_texts(trainee.tokenizer, [text for texts in pool.captions for text in texts])
    token_ids = token_ids.reshape(len(pool.captions), -1, token_ids.shape[1])
    pictures, labels = labelled_pictures("validation", recipe.validation_scenes, size=IMAGE_SIZE)
    adamw, muon = _optimizers(trainee.model, recipe)
    rng = np.random.default_rng(recipe.seed)
    order = islice(batches(len(pool.captions), recipe.batch_size, rng), recipe.steps)
    started, losses, accuracy = time.monotonic(), [], 0.0
    for step, rows in enumerate(tqdm(order, "training", recipe.steps, disable=None), start=1):
        wordings = rng.integers(token_ids.shape[1], size=len(rows))
        texts = token_ids[torch.from_numpy(rows), torch.from_numpy(wordings)]
        losses.append(_step(trainee, adamw, muon, pool.pictures[rows], texts, learning_rate(step, recipe)))
        if step % recipe.report_every == 0 or step == recipe.steps:
            accuracy = 100 * zero_shot_accuracy(trainee, pictures, labels)
            tqdm.write(
                f"step {step}  {time.monotonic() - started:.0f} s  loss {np.mean(losses):.3f}  top-1 {accuracy:.1f} %"
            )
            losses.clear()
    return Training(
        parameters=sum(weight.numel() for weight in trainee.model.parameters()),
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        scenes=len(pool.captions),
        minutes=(time.monotonic() - started) / 60,
        validation_accuracy=accuracy,
    )


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token ids, int64 (N, L): cut and padded as the tokenizer does it."""
    return torch.tensor([item.ids for item in tokenizer.encode_batch_fast(list(texts))])


@torch.no_grad()
def zero_shot_accuracy(trainee: Trainee, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """The share of right answers over all classes, with the first template."""
    trainee.model.eval()
    prompts = [TEMPLATES[0].format(name) for name in CLASS_NAMES]
    texts = trainee.embed_texts(encode_texts(trainee.tokenizer, prompts))
    images = torch.cat([trainee.embed_images(part) for part in np.array_split(pictures, -(-len(pictures) // 100))])
    trainee.model.train()
    return float(((images @ texts.T).argmax(dim=1).numpy() == labels).mean())


def same_texts(token_ids: torch.Tensor) -> torch.Tensor:
    """bool (N, N): the pairs of different rows whose texts are equal word for word. They are no negatives."""
    same = (token_ids[:, None] == token_ids[None]).all(dim=-1)
    return same & ~torch.eye(len(same), dtype=torch.bool)


def _step(
    trainee: Trainee,
    adamw: torch.optim.Optimizer,
    muon: Muon,
    pictures: NDArray[np.uint8],
    texts: torch.Tensor,
    rate: float,
) -> float:
    trainee.model.zero_grad()
    loss = trainee.loss(trainee.embed_images(pictures), trainee.embed_texts(texts), texts)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(trainee.model.parameters(), 1.0)
    for group in adamw.param_groups:
        group["lr"] = rate
    adamw.step()
    muon.step(rate)
    return loss.item()


def _optimizers(model: torch.nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, Muon]:
    """Muon for the transformer blocks' matrices, AdamW for the rest; weight decay on matrices and kernels only."""
    hidden, others, vectors = [], [], []
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and _IN_BLOCKS.search(name):
            hidden.append(weight)
        elif weight.ndim < 2 or "embedding" in name:
            vectors.append(weight)
        else:
            others.append(weight)
    adamw = torch.optim.AdamW(
        [{"params": others, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    return adamw, Muon(hidden, recipe.weight_decay)
