"""Which form of a vision transformer's last block gives patches that point where their label is.

    python benchmarks/dense_forms.py [--scenes 500]

The dense output (export/towers/dense.py) is one of many that were proposed. All are computed here by the demonstration
checkpoint's reference tower in torch, and play the pointing game (benchmarks/pointing_game.py) on scenes of two objects
of the split "validation", at the model's own pixels. A form is what a patch attends with, and whether the block's input
and its perceptron are added:

    class token   no attention between patches: each one's values, those of a head times the class token's attention
                  to the patch (the parts of arXiv 2310.05916); what the dense output is
    values        a patch keeps its own values (MaskCLIP, arXiv 2112.01071)
    query-key     the block's own attention
    query-query, key-key, value-value
                  attention to what is alike (SCLIP, arXiv 2312.01597; ClearCLIP, arXiv 2407.12442; CLIP Surgery,
                  arXiv 2304.05653)
    neighbours    the mean of a patch's surroundings by a Gaussian (as in NACLIP, arXiv 2404.08181)

A map is a patch's cosine with its label; "told from others" takes the mean of the cosines with all 120 labels away,
and "share of labels" is the label's probability among them. Writes results/dense_forms.md and .json beside this file,
and prints the former.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import describe_machine
from numpy.typing import NDArray
from publish import publish

from clipedge.calibration.scenes import CLASS_NAMES, render, sample_scene
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import ImageTower, build_image_tower
from clipedge.export.towers.blocks import attend

ATTENTIONS = ("class token", "values", "query-key", "query-query", "key-key", "value-value", "neighbours")
SCORES = ("cosine", "told from others", "share of labels")
SPREAD = 1.0  # of the neighbours' Gaussian, in patches


@dataclass(frozen=True)
class Row:
    """A form's accuracy in percent, by score."""

    attention: str
    input: bool
    perceptron: bool
    accuracy: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Scenes:
    """Pixels (N, H, W, 3), the objects' masks (N, 2, H, W) and their labels (N, 2), indices into ``CLASS_NAMES``."""

    pixels: torch.Tensor
    masks: NDArray[np.bool_]
    labels: torch.Tensor


def draw(count: int, size: int) -> Scenes:
    scenes = [sample_scene("validation", index, objects=2) for index in range(count)]
    rendered = [render(scene, size, size) for scene in scenes]
    labels = [[CLASS_NAMES.index(f"{item.color} {item.shape}") for item in scene.objects] for scene in scenes]
    pixels = torch.from_numpy(np.stack([one.picture for one in rendered]))
    return Scenes(pixels, np.stack([one.masks for one in rendered]), torch.tensor(labels))


def patches(tower: ImageTower, hidden: torch.Tensor, attention: str, add_input: bool, perceptron: bool) -> torch.Tensor:
    """(N, T, W) as they enter the last block to unit embeddings (N, patches, D)."""
    block: Any = tower.blocks[-1]
    attn, normed = block.attn, block.norm1(hidden)
    query, key, value = attn.query(normed), attn.key(normed), attn.value(normed)
    pairs = {
        "query-key": (query, key), "query-query": (query, query), "key-key": (key, key), "value-value": (value, value)
    }  # fmt: skip
    if attention in pairs:
        value = attend(*pairs[attention], value, attn.heads, attn.scale, None)
    elif attention == "class token":
        heads = [part.unflatten(-1, (attn.heads, -1)) for part in (query[:, :1], key, value)]
        weights = torch.einsum("nqhc,nthc->nth", *heads[:2]).mul(attn.scale).softmax(dim=1)
        value = (heads[2] * weights[..., None] * key.shape[1]).flatten(2)
    elif attention == "neighbours":
        value = torch.cat([value[:, :1], _surroundings(value.shape[1] - 1) @ value[:, 1:]], dim=1)
    result = attn.out(value) + (hidden if add_input else 0)
    if perceptron:
        result = result + block.fc2(F.gelu(block.fc1(block.norm2(result))))
    return F.normalize(tower.projection(tower.norm_post(result[:, 1:])), dim=-1)


def _surroundings(count: int) -> torch.Tensor:
    """(patches, patches): each row are the weights of a patch's surroundings."""
    side = round(count**0.5)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    weights = torch.exp(-(torch.cdist(places, places) ** 2) / (2 * SPREAD**2))
    return weights / weights.sum(dim=1, keepdim=True)


def accuracies(scenes: Scenes, embeds: torch.Tensor, texts: torch.Tensor, scale: float) -> tuple[float, ...]:
    """The share of hits in percent of patches (N, P, D), by score."""
    cosines = embeds @ texts.T
    maps = (cosines, cosines - cosines.mean(dim=-1, keepdim=True), torch.log_softmax(scale * cosines, dim=-1))
    places = scenes.labels[:, None].expand(-1, cosines.shape[1], -1)
    return tuple(100 * hits(scenes.masks, values.gather(2, places)) for values in maps)


def hits(masks: NDArray[np.bool_], maps: torch.Tensor) -> float:
    """How often the highest pixel of maps (N, P, 2), drawn as large as the masks, lies inside them."""
    side, size = round(maps.shape[1] ** 0.5), masks.shape[-1]
    drawn = F.interpolate(maps.transpose(1, 2).unflatten(2, (side, side)), size=size, mode="bilinear")
    highest = drawn.flatten(2).argmax(dim=2)[..., None].numpy()
    return float(np.take_along_axis(masks.reshape(*masks.shape[:2], -1), highest, axis=2).mean())


def measure(count: int) -> tuple[float, list[Row]]:
    """The chance level in percent, and the rows."""
    checkpoint = load_checkpoint(DEMO_CHECKPOINT)
    tower = build_image_tower(checkpoint)
    assert isinstance(tower, ImageTower)
    texts = torch.from_numpy(SourceTexts(checkpoint).encode([f"a photo of a {name}." for name in CLASS_NAMES]))
    scenes = draw(count, checkpoint.preprocessing.height)
    hidden = tower.embedding(scenes.pixels)
    for block in list(tower.blocks)[:-1]:
        hidden = block(hidden, torch.zeros(count, dtype=torch.int64), None)
    rows = [
        Row(*form, accuracies(scenes, patches(tower, hidden, *form), texts, checkpoint.logit_scale))
        for form in itertools.product(ATTENTIONS, (False, True), (False, True))
    ]
    return 100 * float(scenes.masks.mean()), rows


def markdown(document: dict[str, Any]) -> str:
    lines = [
        "# Forms of the dense output",
        "",
        f'The demonstration checkpoint in torch; {document["scenes"]} scenes of two objects of the split "validation".',
        f"Maps whose highest pixel lies inside the named object's mask, in percent; chance {document['chance']:.1f}.",
        f"{document['machine']['cpu']}, {document['machine']['date']}.",
        "",
        f"| attention | block's input | perceptron | {' | '.join(SCORES)} |",
        f"|---|---|---|{'---:|' * len(SCORES)}",
    ]
    for row in document["rows"]:
        added = ["yes" if row[part] else "no" for part in ("input", "perceptron")]
        figures = [f"{value:.1f}" for value in row["accuracy"]]
        lines.append(f"| {' | '.join([row['attention'], *added, *figures])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500, help="scenes of two objects (default 500)")
    count = parser.parse_args().scenes
    with torch.inference_mode():
        chance, rows = measure(count)
    document = {
        "machine": describe_machine(), "scenes": count, "chance": chance, "rows": [asdict(row) for row in rows]
    }  # fmt: skip
    page = markdown(document)
    publish("dense_forms", document, page)


if __name__ == "__main__":
    main()
