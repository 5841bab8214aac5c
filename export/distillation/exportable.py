"""A student as export will read it, which is not always as it was trained; and whether export takes one at all.

A tower of timm is trained as open_clip builds it. Export reads some of these into towers of its own, with branches and
BatchNorms folded (MobileCLIP's), and traces the others' graphs, which not every network allows. That is found out
before a student is trained, by reading and writing one with its first weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime
import torch

from clipedge.errors import MissingDependencyError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import TextConfig, TracedImageConfig
from clipedge.export.checkpoints.openclip.config import openclip_model
from clipedge.export.checkpoints.openclip.folder import OPENCLIP_CONFIG, OPENCLIP_WEIGHTS, openclip_image_layout
from clipedge.export.checkpoints.tensors import TORCH_TYPES, StoredTensor, read_tensors
from clipedge.export.distillation.spec import StudentSpec
from clipedge.export.distillation.students import make_student, with_image_tower
from clipedge.export.graphs import write_image_graph
from clipedge.export.towers import build_image_tower
from clipedge.export.training.batch_norms import has_statistics
from clipedge.export.training.openclip_folder import openclip_image, openclip_model_cfg

__all__ = ["as_exported", "check_student"]

MOST_APART = 1e-3  # of an embedding of unit length, graph against tower; both compute in float32


def as_exported(student: Checkpoint) -> Checkpoint:
    """The student as export reads the folder in which it is saved.

    Raises CheckpointError for one that it would not read.
    """
    image, text = student.image, student.text
    if not isinstance(image, TracedImageConfig):
        return student
    assert isinstance(text, TextConfig)
    place = Path(OPENCLIP_WEIGHTS)
    stored = {
        name: StoredTensor(place, tuple(weight.shape), TORCH_TYPES.get(weight.dtype, str(weight.dtype)), weight.detach)
        for name, weight in openclip_image(student, image).items()
    }
    model = openclip_model(Path(OPENCLIP_CONFIG), openclip_model_cfg(image, text, student.embed_dim))
    layout = openclip_image_layout(model, stored)
    tensors = read_tensors(stored, layout.shapes, place, layout.ignored)
    return with_image_tower(student, layout.config, layout.canonical(tensors))


def check_student(teacher: Checkpoint, spec: StudentSpec, together: int) -> None:
    """Raises UsageError for one of timm's towers that takes no pictures of the teacher's size, or that export refuses.

    ``together``: how many pictures at least the student sees at a time. Other students are made of ClipEdge's own
    towers, which export has graphs for. Raises MissingDependencyError where tracing lacks a library.
    """
    if spec.kind != "timm":
        return
    size = teacher.preprocessing.height
    pixels = torch.randint(0, 256, (2, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    try:
        student = make_student(teacher, spec, 0, ())
        tower = build_image_tower(student)
        with torch.inference_mode():
            embeds = tower(pixels)
        if embeds.shape != (2, teacher.embed_dim):
            raise ValueError(f"embeddings of the shape {tuple(embeds.shape)}")
    except UsageError:
        raise
    except Exception as error:  # whatever a network raises for pictures that it does not take
        raise UsageError(
            f"--student {spec.text}: expected a tower that open_clip builds, and that makes {teacher.embed_dim} "
            f"numbers of a picture of {size} pixels, found {_said(error)}; name another"
        ) from None
    if has_statistics(tower) and together < 2:
        raise UsageError(
            f"--student {spec.text} has BatchNorms, which compare pictures: expected 2 or more to be seen together, "
            "found 1; make the batches larger or accumulate less"
        )
    try:
        apart = float((_exported_embeds(student, pixels) - embeds).abs().max())
        if not apart <= MOST_APART:
            raise ValueError(f"a graph whose embeddings are {apart:.2g} from the tower's")
    except MissingDependencyError:
        raise
    except Exception as error:  # a reader's, tracing's or the engine's
        raise UsageError(
            f"--student {spec.text}: expected a tower that `clipedge export` takes, found {_said(error)}; name another "
            "(docs/distillation.md lists some that it takes)"
        ) from None


def _exported_embeds(student: Checkpoint, pixels: torch.Tensor) -> torch.Tensor:
    """What the float graph that export would write makes of ``pixels``, in the engine in which exports are proven."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.onnx"
        write_image_graph(build_image_tower(as_exported(student)), path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (embeds,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    return torch.from_numpy(embeds)


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
