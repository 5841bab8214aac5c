"""A student's own text tower before its first step: cut out of the teacher's, or with new weights.

After TinyCLIP (Wu et al. 2023, arXiv 2309.12314), which inherits both towers. The tokenizer stays the teacher's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from clipedge.errors import UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.checkpoint import space_id
from clipedge.export.checkpoints.configs import ModelConfig, TextConfig
from clipedge.export.distillation.importance import measure_text_importance
from clipedge.export.distillation.inherit import cut_config, inherit_text
from clipedge.export.distillation.new_weights import new_text_weights
from clipedge.export.distillation.spec import StudentSpec
from clipedge.export.distillation.students import EPS, HEAD_WIDTH
from clipedge.export.distillation.texts import tokens_of
from clipedge.export.source_texts import SourceTexts

__all__ = ["text_config", "with_text_student", "with_text_tower"]

MEASURED = 256  # texts on which the importance of the teacher's parts is measured


def text_config(teacher: Checkpoint, spec: StudentSpec) -> TextConfig:
    """The shape of the student's text tower. Raises UsageError for sizes that do not go together."""
    config = teacher.text
    assert isinstance(config, TextConfig)  # check_teacher has seen to it
    if spec.kind == "inherited":
        return cut_config(config, spec)
    assert spec.layers is not None and spec.width is not None
    heads = max(1, spec.width // HEAD_WIDTH) if spec.heads is None else spec.heads
    if spec.width % heads:
        raise UsageError(f"{spec.named}: the width {spec.width} is no multiple of {heads} heads; change either")
    return dataclasses.replace(
        config,
        layers=spec.layers,
        width=spec.width,
        heads=heads,
        mlp_width=4 * spec.width if spec.mlp_width is None else spec.mlp_width,
        activation="gelu",
        eps=EPS,
    )


def with_text_student(student: Checkpoint, spec: StudentSpec, seed: int, texts: Sequence[str]) -> Checkpoint:
    """A student that has its teacher's text tower, with one of its own.

    An inherited one is chosen by what some of the ``texts`` show of its parts' importance.
    """
    config = text_config(student, spec)
    if spec.kind == "new":
        return with_text_tower(student, config, new_text_weights(config, student.embed_dim, seed))
    chosen = np.linspace(0, len(texts) - 1, min(MEASURED, len(texts))).astype(int)
    tokens = tokens_of(SourceTexts(student).tokenizer, [texts[place] for place in chosen])
    return with_text_tower(student, config, inherit_text(student, config, measure_text_importance(student, tokens)))


def with_text_tower(checkpoint: Checkpoint, config: TextConfig, weights: Mapping[str, torch.Tensor]) -> Checkpoint:
    """The same with another text tower: another embedding space, since texts land elsewhere."""
    model = ModelConfig(checkpoint.image, config, checkpoint.embed_dim)
    return dataclasses.replace(
        checkpoint, text=config, text_weights=weights, space_id=space_id(model, checkpoint.image_weights, weights)
    )
