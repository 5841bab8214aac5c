"""Outlier twins of a checkpoint: the same function, in weights that make INT8 hard.

Trained CLIP towers have a few channels hundreds of times larger than the rest (Dettmers et al. 2022, arXiv
2208.07339; Sun et al. 2024, "Massive activations", arXiv 2402.17762). A twin has them by construction, and since its
float32 answers are those of the original, whatever it loses in INT8 was lost by the quantizer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["CONSTANT", "write_outlier_twin"]

CHANNELS = (3, 17, 40)  # which are scaled, of every norm and of every value projection
CONSTANT = 300.0  # what the added neuron gives whatever the input; GELU leaves such a number as it is

Weights = dict[str, torch.Tensor]


def write_outlier_twin(checkpoint: Path, output: Path, factor: float) -> Path:
    """Write the twin of a Hugging Face CLIP folder to the folder ``output``, which must not exist; returns it.

    In every block of both towers: some channels of both LayerNorms and of the value projection are multiplied by
    ``factor`` and the weights that read them divided by it, and the perceptron gets one more neuron, whose constant
    output is taken out again by the second layer's bias.
    """
    shutil.copytree(checkpoint, output)
    weights = {name: tensor.double() for name, tensor in load_file(output / "model.safetensors").items()}
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    for tower in ("vision", "text"):
        settings = config[f"{tower}_config"]
        for index in range(settings["num_hidden_layers"]):
            block = f"{tower}_model.encoder.layers.{index}"
            _scale_norms(weights, block, factor)
            _scale_values(weights, block, factor)
            _add_constant_neuron(weights, block)
        settings["intermediate_size"] += 1
    config["dtype"] = "float32"
    (output / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    single = {name: tensor.float().contiguous() for name, tensor in weights.items()}
    save_file(single, output / "model.safetensors", {"format": "pt"})
    return output


def _scale_norms(weights: Weights, block: str, factor: float) -> None:
    attention = [f"{block}.self_attn.{part}_proj" for part in "qkv"]
    for norm, readers in (("layer_norm1", attention), ("layer_norm2", [f"{block}.mlp.fc1"])):
        for channel in CHANNELS:
            weights[f"{block}.{norm}.weight"][channel] *= factor
            weights[f"{block}.{norm}.bias"][channel] *= factor
            for reader in readers:
                weights[f"{reader}.weight"][:, channel] /= factor


def _scale_values(weights: Weights, block: str, factor: float) -> None:
    for channel in CHANNELS:
        weights[f"{block}.self_attn.v_proj.weight"][channel] *= factor
        weights[f"{block}.self_attn.v_proj.bias"][channel] *= factor
        weights[f"{block}.self_attn.out_proj.weight"][:, channel] /= factor


def _add_constant_neuron(weights: Weights, block: str) -> None:
    first, second = f"{block}.mlp.fc1", f"{block}.mlp.fc2"
    column = weights[f"{second}.weight"].mean(dim=1, keepdim=True) + 0.1 * weights[f"{second}.weight"][:, :1]
    nothing = torch.zeros_like(weights[f"{first}.weight"][:1])
    weights[f"{first}.weight"] = torch.cat([weights[f"{first}.weight"], nothing])
    weights[f"{first}.bias"] = torch.cat([weights[f"{first}.bias"], torch.tensor([CONSTANT]).double()])
    weights[f"{second}.weight"] = torch.cat([weights[f"{second}.weight"], column], dim=1)
    weights[f"{second}.bias"] = weights[f"{second}.bias"] - CONSTANT * column[:, 0]
