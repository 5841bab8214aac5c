"""transformers in eager PyTorch: CLIPModel, float32, get_image_features, as the zero-shot pipeline runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import CLIPModel

from engines import Embeddings, Engine, peer_engine


def open_engine(folder: Path, model: str) -> Engine:
    """Load the checkpoint; there is one ``model`` only, the empty name."""
    assert not model
    clip = CLIPModel.from_pretrained(folder / "checkpoint", dtype=torch.float32).eval()

    @torch.inference_mode()
    def embed(pixel_values: npt.NDArray[np.float32]) -> Embeddings:
        embeds: Embeddings = clip.get_image_features(pixel_values=torch.from_numpy(pixel_values)).numpy()
        return embeds

    attention = clip.config._attn_implementation
    note = (
        f"transformers {transformers.__version__}, torch {torch.__version__}, {attention} attention, "
        f"{torch.get_num_threads()} threads"
    )
    return peer_engine(folder, embed, note)
