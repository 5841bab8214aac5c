"""The weights of OpenAI's modified ResNets, by the names that OpenAI's and OpenCLIP's files share.

Two functions read, because a file is read once for both towers: ``resnet_shapes`` says what the image tower needs of
it, and ``canonical_resnet`` makes of that what ``clipedge.export.towers.resnet`` takes. ``stored_resnet`` is its
inverse for a tower that was trained as such. Folded on the way, in float64 and rounded once: each BatchNorm into the
convolution in front of it (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv 1712.05877, section 3.2), the attention scale, and the biases of keys and
values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints.configs import ResNetConfig
from clipedge.export.checkpoints.tensors import Shape

__all__ = ["PREFIX", "canonical_resnet", "canonical_shapes", "is_batch_count", "resnet_shapes", "stored_resnet"]

PREFIX = "visual."
POOL = f"{PREFIX}attnpool."
BATCH_NORM_EPS = 1e-5
STATISTICS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class _Convolution:
    """A convolution by its canonical name, and where the file has it and the BatchNorm behind it."""

    name: str
    source: str
    norm: str
    shape: Shape


def is_batch_count(name: str) -> bool:
    """Whether a tensor counts the batches of the training, which files have beside the weights of a BatchNorm."""
    return name.endswith(".num_batches_tracked")


def resnet_shapes(config: ResNetConfig, embed_dim: int) -> dict[str, Shape]:
    """The image tower's tensors by their names in the file. Raises CheckpointError for an impossible image size."""
    if config.image_size % 32:
        raise CheckpointError(
            f"the image size is {config.image_size} pixels; a ResNet halves it five times and needs a multiple of 32"
        )
    shapes: dict[str, Shape] = {}
    for convolution in _convolutions(config):
        shapes[f"{convolution.source}.weight"] = convolution.shape
        shapes |= {f"{convolution.norm}.{name}": convolution.shape[:1] for name in STATISTICS}
    features = config.features
    shapes[f"{POOL}positional_embedding"] = (config.tokens, features)
    for part, outputs in (("q", features), ("k", features), ("v", features), ("c", embed_dim)):
        shapes[f"{POOL}{part}_proj.weight"] = (outputs, features)
        shapes[f"{POOL}{part}_proj.bias"] = (outputs,)
    return shapes


def canonical_resnet(tensors: Mapping[str, torch.Tensor], config: ResNetConfig) -> dict[str, torch.Tensor]:
    """The image tower's weights by canonical name, of ``tensors`` as ``resnet_shapes`` names them; their type stays."""
    weights: dict[str, torch.Tensor] = {}
    for convolution in _convolutions(config):
        weights |= _fold_batch_norm(convolution, tensors)
    return weights | _attention_pool(tensors, config)


def _convolutions(config: ResNetConfig) -> Iterator[_Convolution]:
    stem, inputs = config.width // 2, config.width
    for index, shape in enumerate([(stem, 3, 3, 3), (stem, stem, 3, 3), (inputs, stem, 3, 3)], start=1):
        yield _Convolution(f"stem.conv{index}", f"{PREFIX}conv{index}", f"{PREFIX}bn{index}", shape)
    for stage, blocks in enumerate(config.layers):
        width = config.width * 2**stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            shapes = [(width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            for index, shape in enumerate(shapes, start=1):
                source = f"{PREFIX}{name}"
                yield _Convolution(f"{name}.conv{index}", f"{source}.conv{index}", f"{source}.bn{index}", shape)
            if block == 0:  # it widens the maps, so what it adds to has to be widened too
                source = f"{PREFIX}{name}.downsample"
                yield _Convolution(f"{name}.downsample", f"{source}.0", f"{source}.1", (4 * width, inputs, 1, 1))
            inputs = 4 * width


def _fold_batch_norm(convolution: _Convolution, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """g (W x - m) / sqrt(v + eps) + b = W' x + b' for W' = W g / sqrt(v + eps) and b' = b - m g / sqrt(v + eps)."""
    weight = tensors[f"{convolution.source}.weight"]
    gain, bias, mean, variance = (tensors[f"{convolution.norm}.{name}"].double() for name in STATISTICS)
    factor = gain / torch.sqrt(variance + BATCH_NORM_EPS)
    return {
        f"{convolution.name}.weight": (weight * factor[:, None, None, None]).to(weight.dtype),
        f"{convolution.name}.bias": (bias - mean * factor).to(weight.dtype),
    }


def _attention_pool(tensors: Mapping[str, torch.Tensor], config: ResNetConfig) -> dict[str, torch.Tensor]:
    """The queries with the attention scale; no bias for keys and values (as ``fold_attention_biases`` of
    ``clipedge.export.towers.simplify`` has it): softmax ignores the keys', the values' passes into the output's."""
    position = tensors[f"{POOL}positional_embedding"]
    scale = (config.features // config.heads) ** -0.5
    folded = {name: tensors[f"{POOL}{name}"].double() for name in ("q_proj.weight", "q_proj.bias", "v_proj.bias")}
    out, bias = tensors[f"{POOL}c_proj.weight"], tensors[f"{POOL}c_proj.bias"].double()
    weights = {
        "pool.attn.query.weight": folded["q_proj.weight"] * scale,
        "pool.attn.query.bias": folded["q_proj.bias"] * scale,
        "pool.attn.out.bias": bias + out.double() @ folded["v_proj.bias"],
    }
    return {
        "pool.position": position,
        "pool.attn.key_value.weight": torch.cat([tensors[f"{POOL}{part}_proj.weight"] for part in ("k", "v")]),
        "pool.attn.out.weight": out,
        **{name: tensor.to(position.dtype) for name, tensor in weights.items()},
    }


def canonical_shapes(config: ResNetConfig, embed_dim: int) -> dict[str, Shape]:
    """The shapes of what ``canonical_resnet`` returns."""
    shapes: dict[str, Shape] = {}
    for convolution in _convolutions(config):
        shapes |= {f"{convolution.name}.weight": convolution.shape, f"{convolution.name}.bias": convolution.shape[:1]}
    features = config.features
    return shapes | {
        "pool.position": (config.tokens, features),
        "pool.attn.query.weight": (features, features),
        "pool.attn.query.bias": (features,),
        "pool.attn.key_value.weight": (2 * features, features),
        "pool.attn.out.weight": (embed_dim, features),
        "pool.attn.out.bias": (embed_dim,),
    }


def stored_resnet(weights: Mapping[str, torch.Tensor], config: ResNetConfig) -> dict[str, torch.Tensor]:
    """The tensors of a file of which ``canonical_resnet`` makes these weights: float32, and to the bit where the
    heads' width is a power of four, which makes the attention scale one of two.

    BatchNorms hold the convolutions' biases and else let everything pass; the factor that is left of them, 1 + 7e-9,
    is lost when a product is rounded to float32.
    """
    tensors: dict[str, torch.Tensor] = {}
    for convolution in _convolutions(config):
        tensors[f"{convolution.source}.weight"] = weights[f"{convolution.name}.weight"]
        bias = weights[f"{convolution.name}.bias"]
        one, none = torch.ones_like(bias), torch.zeros_like(bias)
        statistics = (one, bias, none, one - BATCH_NORM_EPS)
        tensors |= {f"{convolution.norm}.{name}": t for name, t in zip(STATISTICS, statistics, strict=True)}
    scale = (config.features // config.heads) ** -0.5
    key, value = weights["pool.attn.key_value.weight"].chunk(2)
    none = torch.zeros(config.features)
    return tensors | {
        f"{POOL}positional_embedding": weights["pool.position"],
        f"{POOL}q_proj.weight": weights["pool.attn.query.weight"] / scale,
        f"{POOL}q_proj.bias": weights["pool.attn.query.bias"] / scale,
        f"{POOL}k_proj.weight": key.clone(),  # a file holds no views of one tensor
        f"{POOL}k_proj.bias": none,
        f"{POOL}v_proj.weight": value.clone(),
        f"{POOL}v_proj.bias": none.clone(),
        f"{POOL}c_proj.weight": weights["pool.attn.out.weight"],
        f"{POOL}c_proj.bias": weights["pool.attn.out.bias"],
    }
