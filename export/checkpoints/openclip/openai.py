"""OpenAI's CLIP files: what their tensors say about the model.

OpenAI publishes TorchScript archives (https://github.com/openai/CLIP). Their tensors, and those of state dicts saved
of them, are named as OpenCLIP names its own, and three numbers among them are not weights. The shapes give the
architecture, by the rules of the function ``build_model`` of OpenAI's ``clip/model.py``: a head has 64 channels, a
perceptron four times its input's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.tensors import Shape, Stored

__all__ = ["MARKS", "infer_model", "is_openai"]

# What OpenAI's archives have beside the weights; nobody else's do.
MARKS = frozenset({"input_resolution", "context_length", "vocab_size"})

HEAD_WIDTH = 64


def is_openai(stored: Stored) -> bool:
    """Whether a file is OpenAI's own. Its activation is QuickGELU then."""
    return stored.keys() >= MARKS


def infer_model(place: Path, stored: Stored) -> dict[str, Any]:
    """The ``model_cfg`` of a model of OpenAI's kinds, of the shapes of its tensors; the activation they do not tell.

    Raises CheckpointError when the tensors are not those of such a model.
    """
    embed_dim = _shape(place, stored, "text_projection")[-1]
    width = _shape(place, stored, "ln_final.weight")[0]
    context_length, vocab_size = (
        _shape(place, stored, name)[0] for name in ("positional_embedding", "token_embedding.weight")
    )
    return {
        "embed_dim": embed_dim,
        "vision_cfg": _vit(place, stored) if "visual.proj" in stored else _resnet(place, stored),
        "text_cfg": {
            "context_length": context_length,
            "vocab_size": vocab_size,
            "width": width,
            "heads": width // HEAD_WIDTH,
            "layers": _count(stored, "transformer.resblocks."),
        },
    }


def _vit(place: Path, stored: Stored) -> dict[str, Any]:
    width, _, _, patch_size = _shape(place, stored, "visual.conv1.weight", 4)
    tokens = _shape(place, stored, "visual.positional_embedding", 2)[0]
    return {
        "layers": _count(stored, "visual.transformer.resblocks."),
        "width": width,
        "patch_size": patch_size,
        "image_size": patch_size * round((tokens - 1) ** 0.5),
    }


def _resnet(place: Path, stored: Stored) -> dict[str, Any]:
    tokens = _shape(place, stored, "visual.attnpool.positional_embedding", 2)[0]
    return {
        "layers": [_count(stored, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)],
        "width": _shape(place, stored, "visual.layer1.0.conv1.weight", 4)[0],
        "image_size": 32 * round((tokens - 1) ** 0.5),
    }


def _count(stored: Stored, prefix: str) -> int:
    """How many different numbers stand behind a prefix."""
    return len({name[len(prefix) :].split(".")[0] for name in stored if name.startswith(prefix)})


def _shape(place: Path, stored: Stored, name: str, dimensions: int = 1) -> Shape:
    if name not in stored or len(stored[name].shape) < dimensions:
        raise CheckpointError(
            f"{place}: expected a CLIP with the tensors of OpenAI's or OpenCLIP's, found no {name} of "
            f"{dimensions} or more dimensions. Is it another model, name its architecture with --arch"
        )
    return stored[name].shape
