"""How well the demonstration checkpoint knows its scenes, measured with transformers and not with ClipEdge's runtime.

    python benchmarks/demo_accuracy.py [--checkpoint DIR] [--scenes 2000] [--json]

Zero-shot top-1 over all shape-colour classes on unseen scenes of the split "test", the same on the combinations that
training never showed, and text-to-image recall@1: for each of 200 different captions of 200 scenes, whether its own
picture is the nearest of all 200. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from clipedge.calibration.scenes import CLASS_NAMES, TEMPLATES, labelled_pictures, render, sample_scene
from clipedge.evaluation.intervals import wilson_interval

CHECKPOINT = Path(__file__).parent.parent / "export" / "demo"
SIZE = 256  # pictures are drawn larger than the model sees them, so that its preprocessing is measured too
BATCH = 100


@dataclass(frozen=True)
class Score:
    """A share of right answers with its 95 % interval."""

    name: str
    right: int
    total: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Reference:
    """The checkpoint as transformers loads it."""

    model: CLIPModel
    images: CLIPImageProcessorPil
    tokenizer: AutoTokenizer


def load_reference(checkpoint: Path) -> Reference:
    """Loads a checkpoint folder, weights as float32."""
    return Reference(
        CLIPModel.from_pretrained(checkpoint, dtype=torch.float32).eval(),
        CLIPImageProcessorPil.from_pretrained(checkpoint),
        AutoTokenizer.from_pretrained(checkpoint),
    )


@torch.no_grad()
def embed_pictures(reference: Reference, pictures: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """L2-normalised embeddings, float32 (N, D), of uint8 (H, W, 3) RGB pictures."""
    parts = []
    for start in range(0, len(pictures), BATCH):
        pixels = reference.images(list(pictures[start : start + BATCH]), return_tensors="pt")["pixel_values"]
        parts.append(reference.model.get_image_features(pixel_values=pixels).pooler_output)
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def embed_texts(reference: Reference, texts: Sequence[str]) -> torch.Tensor:
    """L2-normalised embeddings, float32 (N, D)."""
    tokens = reference.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    return torch.nn.functional.normalize(reference.model.get_text_features(**tokens).pooler_output, dim=-1)


def zero_shot(reference: Reference, name: str, scenes: int, *, held_out_only: bool = False) -> Score:
    """Top-1 over all of ``CLASS_NAMES`` with the first template, on labelled test scenes."""
    texts = embed_texts(reference, [TEMPLATES[0].format(label) for label in CLASS_NAMES])
    right = 0
    for start in range(0, scenes, BATCH):
        count = min(BATCH, scenes - start)
        pictures, labels = labelled_pictures("test", count, size=SIZE, start=start, held_out_only=held_out_only)
        answers = (embed_pictures(reference, list(pictures)) @ texts.T).argmax(dim=1)
        right += int((answers.numpy() == labels).sum())
    return score(name, right, scenes)


def recall(reference: Reference, captions: int) -> Score:
    """Text-to-image recall@1 among as many test scenes as captions, all captions different."""
    found: dict[str, NDArray[np.uint8]] = {}
    index = 0
    while len(found) < captions:
        rendered = render(sample_scene("test", index), SIZE, SIZE)
        found.setdefault(rendered.captions[-1], rendered.picture)  # the last wording names most attributes
        index += 1
    similarity = embed_texts(reference, list(found)) @ embed_pictures(reference, list(found.values())).T
    right = int((similarity.argmax(dim=1) == torch.arange(captions)).sum())
    return score(f"text-to-image recall@1 among {captions}", right, captions)


def score(name: str, right: int, total: int) -> Score:
    """A share with its 95 % interval."""
    low, high = wilson_interval(right, total)
    return Score(name, right, total, right / total, low, high)


def measure(reference: Reference, scenes: int, held_out: int, captions: int) -> list[Score]:
    """All the scores, in the order in which they are printed."""
    return [
        zero_shot(reference, f"zero-shot top-1, {len(CLASS_NAMES)} classes", scenes),
        zero_shot(reference, "  combinations never trained on", held_out, held_out_only=True),
        recall(reference, captions),
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="a Hugging Face CLIP folder")
    parser.add_argument("--scenes", type=int, default=2000, help="test scenes over all classes (default 2000)")
    parser.add_argument("--held-out", type=int, default=1000, help="test scenes of unseen combinations (default 1000)")
    parser.add_argument("--captions", type=int, default=200, help="captions for retrieval (default 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    args = parser.parse_args()
    scores = measure(load_reference(args.checkpoint), args.scenes, args.held_out, args.captions)
    if args.json:
        print(json.dumps([asdict(item) for item in scores], indent=2))
        return
    for item in scores:
        print(f"{item.name:36} {item.share:6.1%}  [{item.low:.1%}, {item.high:.1%}]  {item.right} of {item.total}")


if __name__ == "__main__":
    main()
