"""A specification and a teacher -> the student before its first step: new weights, or the teacher's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.checkpoint import space_id
from clipedge.export.checkpoints.configs import (
    ImageConfig,
    ModelConfig,
    ResNetConfig,
    TextConfig,
    TracedImageConfig,
    VitConfig,
)
from clipedge.export.distillation.importance import measure_importance
from clipedge.export.distillation.inherit import inherit, inherited_config
from clipedge.export.distillation.new_weights import new_vit_weights
from clipedge.export.distillation.resnets import new_resnet_weights, resnet_config
from clipedge.export.distillation.spec import StudentSpec
from clipedge.export.distillation.timm_towers import new_timm_weights, timm_config
from clipedge.export.training.openclip_folder import check_openclip

__all__ = ["check_teacher", "make_student", "student_config", "with_image_tower"]

HEAD_WIDTH = 64  # CLIP's
EPS = 1e-5


def check_teacher(teacher: Checkpoint) -> None:
    """Raises CheckpointError unless a student of it can be saved as a CLIP folder: its text tower and tokenizer have to
    be there and CLIP's, and its probabilities a softmax."""
    text = teacher.text
    if (
        not isinstance(text, TextConfig)
        or (text.causal, text.pool, text.class_token, text.mixers, text.projection_bias)
        != (True, "end", False, False, False)
        or teacher.activation != "softmax"
    ):
        raise CheckpointError(
            f"{teacher.name}: a student keeps its teacher's text tower or its shape, in CLIP's layout; expected a "
            "causal text transformer pooled at the end of the text, with softmax, found another. Distil from a CLIP"
        )
    assert teacher.tokenizer_json  # read now: what is missing is said before anything is trained


def student_config(teacher: Checkpoint, spec: StudentSpec) -> VitConfig | ResNetConfig | TracedImageConfig:
    """The shape of the student's image tower.

    Raises UsageError for sizes that do not go together, CheckpointError for a teacher that nothing can be inherited
    from, or that has no such student, MissingDependencyError for one of timm's towers without timm.
    """
    if spec.kind == "inherited":
        return inherited_config(teacher, spec)
    if spec.kind == "new":
        return _vit_config(teacher, spec)
    config = resnet_config(teacher, spec) if spec.kind == "resnet" else timm_config(teacher, spec)
    check_openclip(teacher, spec.text)
    return config


def _vit_config(teacher: Checkpoint, spec: StudentSpec) -> VitConfig:
    assert spec.layers is not None and spec.width is not None and spec.patch_size is not None
    heads = max(1, spec.width // HEAD_WIDTH) if spec.heads is None else spec.heads
    if spec.width % heads:
        raise UsageError(
            f"--student {spec.text}: the width {spec.width} is no multiple of {heads} heads; change either"
        )
    size = teacher.preprocessing.height
    if size % spec.patch_size:
        raise UsageError(
            f"--student {spec.text}: the teacher's pictures have {size} pixels, no multiple of patches of "
            f"{spec.patch_size}; name a divisor of {size}"
        )
    return VitConfig(
        image_size=size,
        patch_size=spec.patch_size,
        width=spec.width,
        layers=spec.layers,
        heads=heads,
        mlp_width=4 * spec.width if spec.mlp_width is None else spec.mlp_width,
        activation="gelu",
        eps=EPS,
    )


def make_student(
    teacher: Checkpoint, spec: StudentSpec, seed: int, batches: Iterable[npt.NDArray[np.uint8]]
) -> Checkpoint:
    """The student before training: the teacher's text tower, preprocessing and scale, and an image tower of its own.

    An inherited one is chosen by what ``batches``, pixels (n, H, W, 3) as the teacher takes them, show of its parts'
    importance; for a new one they are not read.
    """
    config = student_config(teacher, spec)
    if isinstance(config, TracedImageConfig):
        return with_image_tower(teacher, config, new_timm_weights(config, seed))
    if isinstance(config, ResNetConfig):
        return with_image_tower(teacher, config, new_resnet_weights(config, teacher.embed_dim, seed))
    if spec.kind == "inherited":
        return with_image_tower(teacher, config, inherit(teacher, config, measure_importance(teacher, batches)))
    return with_image_tower(teacher, config, new_vit_weights(config, teacher.embed_dim, seed))


def with_image_tower(teacher: Checkpoint, config: ImageConfig, weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """The teacher with another image tower: another embedding space, since pictures land elsewhere."""
    model = ModelConfig(config, teacher.text, teacher.embed_dim)
    return dataclasses.replace(
        teacher, image=config, image_weights=weights, space_id=space_id(model, weights, teacher.text_weights)
    )
