"""Trains the demonstration checkpoint on rendered scenes, with CLIP's objective.

    python -m clipedge.export.demo.train --output DIR

The defaults are those of the checkpoint that ships. Needs the extra ``export`` and ``transformers``, whose CLIPModel is
trained, so that what is saved is an ordinary Hugging Face checkpoint by construction.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (the objective);
Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (the optimizer of the hidden matrices).
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import CLIPConfig, CLIPModel
from transformers.utils.logging import disable_progress_bar

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures
from clipedge.export.demo.files import IMAGE_MEAN, IMAGE_STD, write_checkpoint
from clipedge.export.demo.muon import Muon
from clipedge.export.demo.pool import Pool, batches, draw_pool
from clipedge.export.demo.tokenizer import END, START, train_tokenizer

__all__ = [
    "Recipe",
    "build_model",
    "contrastive_loss",
    "embed_images",
    "embed_texts",
    "learning_rate",
    "normalise",
    "train",
    "validate",
]

IMAGE_SIZE = 64
CONTEXT_LENGTH = 32
VOCAB_SIZE = 1000
MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021, section 2.5: keeps training stable


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int = 2000
    batch_size: int = 128
    scenes: int = 120_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 200
    report_every: int = 250
    validation_scenes: int = 600
    seed: int = 0


def train(recipe: Recipe, output: Path) -> None:
    """Trains a model and writes it to ``output`` as a Hugging Face folder, at every report on the way and at the end.

    Deterministic for one machine, number of threads and torch version; elsewhere sums are rounded differently.
    """
    torch.manual_seed(recipe.seed)
    with tempfile.TemporaryDirectory() as scratch:
        pool = draw_pool(Path(scratch) / "pictures.npy", recipe.scenes, IMAGE_SIZE)
        tokenizer = train_tokenizer((text for texts in pool.captions[:5000] for text in texts), VOCAB_SIZE)
        model = build_model(tokenizer)
        _optimize(model, tokenizer, pool, recipe, output)


def build_model(tokenizer: Tokenizer) -> CLIPModel:
    """A new CLIP model of about a million parameters, with random weights from torch's generator."""
    shared = {"hidden_act": "gelu", "projection_dim": 128}
    text = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "bos_token_id": tokenizer.token_to_id(START),
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(END),
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
    }
    return CLIPModel(CLIPConfig(text_config=text | shared, vision_config=vision | shared, projection_dim=128))


def _optimize(model: CLIPModel, tokenizer: Tokenizer, pool: Pool, recipe: Recipe, output: Path) -> None:
    token_ids = _encode_captions(tokenizer, pool.captions)
    adamw, muon = _optimizers(model, recipe)
    rng = np.random.default_rng(recipe.seed)
    started, losses = time.monotonic(), []
    order = islice(batches(len(pool.captions), recipe.batch_size, rng), recipe.steps)
    for step, rows in enumerate(tqdm(order, "training", recipe.steps, disable=None), start=1):
        wordings = rng.integers(token_ids.shape[1], size=len(rows))
        texts = torch.from_numpy(token_ids[rows, wordings].astype(np.int64))
        pixels = normalise(pool.pictures[rows])
        losses.append(_step(model, adamw, muon, pixels, texts, learning_rate(step, recipe)))
        if step % recipe.report_every == 0 or step == recipe.steps:
            accuracy = validate(model, tokenizer, recipe.validation_scenes)
            held_out = validate(model, tokenizer, recipe.validation_scenes // 2, held_out_only=True)
            tqdm.write(
                f"step {step}  {time.monotonic() - started:.0f} s  loss {np.mean(losses):.3f}  "
                f"scale {model.logit_scale.exp().item():.1f}  top-1 {accuracy:.1%}  held out {held_out:.1%}"
            )
            losses.clear()
            write_checkpoint(model, tokenizer, output)


def _step(
    model: CLIPModel,
    adamw: torch.optim.Optimizer,
    muon: Muon,
    pixels: torch.Tensor,
    texts: torch.Tensor,
    rate: float,
) -> float:
    model.zero_grad()
    loss = contrastive_loss(embed_images(model, pixels), embed_texts(model, texts), model.logit_scale, texts)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in adamw.param_groups:
        group["lr"] = rate
    adamw.step()
    muon.step(rate)
    with torch.no_grad():
        model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
    return loss.item()


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, logit_scale: torch.Tensor, token_ids: torch.Tensor
) -> torch.Tensor:
    """CLIP's symmetric InfoNCE over the pairs of a batch (Radford et al. 2021, figure 3).

    images, texts: L2-normalised float32 (N, D), row i of both a pair. logit_scale: the log of the inverse temperature.
    token_ids: int64 (N, L), the texts; a caption that equals one's own word for word is no negative and is left out.
    """
    logits = logit_scale.exp() * images @ texts.T
    pairs = torch.arange(len(images))
    same = (token_ids[:, None] == token_ids[None]).all(dim=-1)
    same[pairs, pairs] = False
    logits = logits.masked_fill(same, -torch.inf)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def embed_images(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Image embeddings, L2-normalised float32 (N, D), of normalised pixels (N, 3, H, W).

    What the model's own forward computes, except that the last block works for the class token alone: a fifth less
    work with four blocks.
    """
    tower = model.vision_model
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    *layers, last = tower.encoder.layers
    for layer in layers:
        hidden = layer(hidden, attention_mask=None)
    pooled = hidden[:, :1]
    normed = last.layer_norm1(hidden)
    attention = last.self_attn
    query, key, value = (
        linear(source).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for linear, source in (
            (attention.q_proj, normed[:, :1]),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    pooled = pooled + attention.out_proj(mixed)
    pooled = pooled + last.mlp(last.layer_norm2(pooled))
    return F.normalize(model.visual_projection(tower.post_layernorm(pooled[:, 0])), dim=-1)


def embed_texts(model: CLIPModel, token_ids: torch.Tensor) -> torch.Tensor:
    """Text embeddings, L2-normalised float32 (N, D), of padded token ids, int64 (N, L)."""
    return F.normalize(model.text_projection(model.text_model(input_ids=token_ids).pooler_output), dim=-1)


def normalise(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Pictures, uint8 (N, H, W, 3), as the model takes them: float32 (N, 3, H, W), mean and deviation taken out."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    return (pixels - mean) / deviation


@torch.no_grad()
def validate(model: CLIPModel, tokenizer: Tokenizer, count: int, *, held_out_only: bool = False) -> float:
    """Zero-shot top-1 over all classes on ``count`` scenes of the split "validation", with the first template."""
    pictures, labels = labelled_pictures("validation", count, size=IMAGE_SIZE, held_out_only=held_out_only)
    prompts = [(TEMPLATES[0].format(name),) for name in CLASS_NAMES]
    texts = embed_texts(model, torch.from_numpy(_encode_captions(tokenizer, prompts)[:, 0].astype(np.int64)))
    images = torch.cat([embed_images(model, normalise(part)) for part in np.array_split(pictures, -(-count // 100))])
    return float(((images @ texts.T).argmax(dim=1).numpy() == labels).mean())


def _encode_captions(tokenizer: Tokenizer, captions: Sequence[tuple[str, ...]]) -> NDArray[np.int16]:
    """Token ids (scenes, wordings, longest), padded with the end token."""
    encoded = tokenizer.encode_batch_fast([text for texts in captions for text in texts])
    longest = max(len(item) for item in encoded)
    ids = np.full((len(encoded), longest), tokenizer.token_to_id(END), dtype=np.int16)
    for row, item in enumerate(encoded):
        ids[row, : len(item)] = item.ids
    return ids.reshape(len(captions), -1, longest)


def _optimizers(model: CLIPModel, recipe: Recipe) -> tuple[torch.optim.Optimizer, Muon]:
    """Muon for the blocks' matrices, AdamW for the rest; weight decay on matrices only."""
    vectors = [w for name, w in model.named_parameters() if w.ndim < 2 or "embedding" in name]
    hidden = [w for name, w in model.named_parameters() if w.ndim == 2 and ".layers." in name]
    others = [model.visual_projection.weight, model.text_projection.weight]
    adamw = torch.optim.AdamW(
        [{"params": others, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    return adamw, Muon(hidden, recipe.weight_decay)


def learning_rate(step: int, recipe: Recipe) -> float:
    """A linear rise over the warm-up, then a linear fall to zero at the last step."""
    rise = step / recipe.warmup
    fall = (recipe.steps + 1 - step) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * min(rise, fall, 1.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m clipedge.export.demo.train", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch-size", type=int, default=Recipe.batch_size)
    parser.add_argument("--scenes", type=int, default=Recipe.scenes, help="training scenes to draw")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    args = parser.parse_args()
    disable_progress_bar()  # transformers' bars would break up ours
    train(Recipe(steps=args.steps, batch_size=args.batch_size, scenes=args.scenes, seed=args.seed), args.output)


if __name__ == "__main__":
    main()
