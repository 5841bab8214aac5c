"""SigLIP in OpenCLIP's layout, its image tower from timm, against open_clip and timm.

open_clip's own tokenizers for it need a hub, so it is asked for the embeddings of given token ids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipedge.export.checkpoints import Checkpoint, load_checkpoint

AskOrigin = Callable[..., Path]
AssertAsOrigin = Callable[[Checkpoint, Path, Path], None]

PREPROCESS = {"resize_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
IDS: list[list[int]] = np.random.default_rng(3).integers(0, 1000, (4, 64)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "activations"),
    [("ViT-B-16-SigLIP", ("gelu", "gelu")), ("ViT-B-32-SigLIP2-256", ("gelu_tanh", "gelu_tanh"))],
)
def test_towers_are_open_clips(
    model: str, activations: tuple[str, str], ask_origin: AskOrigin, assert_as_origin: AssertAsOrigin, tmp_path: Path
) -> None:
    changes = {"text_cfg": {"layers": 1, "vocab_size": 1000}}
    folder = ask_origin(tmp_path / "origin", model, changes=changes, preprocess=PREPROCESS, input_ids=IDS)
    checkpoint = load_checkpoint(folder)
    assert (checkpoint.image.activation, checkpoint.text.activation) == activations
    assert (checkpoint.activation, checkpoint.logit_bias) == ("sigmoid", -10)
    assert_as_origin(checkpoint, folder, tmp_path)
