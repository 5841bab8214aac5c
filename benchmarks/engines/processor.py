"""How every peer gets from a JPEG to ``pixel_values``: as transformers' zero-shot pipeline does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import AutoImageProcessor
from transformers.image_utils import load_image


def load_processor(checkpoint: Path) -> Any:
    """The image processor that transformers chooses by itself in this environment."""
    return AutoImageProcessor.from_pretrained(checkpoint)


def pixel_values(processor: Any, paths: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Decode, resize, crop and normalise: (N, 3, H, W) float32."""
    pictures = [load_image(str(path)) for path in paths]
    values: npt.NDArray[np.float32] = processor(images=pictures, return_tensors="np")["pixel_values"]
    return values
