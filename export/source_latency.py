"""Latency of a checkpoint's towers in eager PyTorch.

``python -m clipedge.export.source_latency SOURCE TOWER...`` prints it as JSON, from a process of its own: the thread
pools of two engines in one process disturb each other. SOURCE is a ``ModelSource`` as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import torch

from clipedge.bench.latency import Latency, measure
from clipedge.export.checkpoints import Checkpoint, ModelSource, load_checkpoint
from clipedge.export.towers import ImageTower, build_image_tower, build_text_tower, dense_tower

__all__ = ["source_latency"]


def source_latency(checkpoint: Checkpoint, tower: str) -> Latency:
    """Latency of one input of zeros, whose values do not matter to a transformer's time."""
    size = checkpoint.image.image_size
    with torch.inference_mode():
        if tower != "text":
            image_tower, pixels = build_image_tower(checkpoint), torch.zeros((1, size, size, 3), dtype=torch.uint8)
            if tower == "dense" and isinstance(image_tower, ImageTower):
                patches = dense_tower(image_tower)
                return measure(lambda: patches(pixels))
            return measure(lambda: image_tower(pixels))
        text_tower, tokens = (
            build_text_tower(checkpoint),
            torch.zeros((1, checkpoint.text.context_length), dtype=torch.int64),
        )
        return measure(lambda: text_tower(tokens))


if __name__ == "__main__":
    named, *towers = sys.argv[1:]
    source = load_checkpoint(ModelSource(**json.loads(named)))
    print(json.dumps({tower: asdict(source_latency(source, tower)) for tower in towers}))
