"""A distilled ResNet is a model for open_clip, too: its own folder, read there by name."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.source_texts import SourceTexts
from clipedge.export.towers import build_image_tower
from clipedge.export.training.folder import write_student

TEXTS = ["a photo of a red circle.", "two blue stars above a house"]
# Texts go in as ids: open_clip's own tokenizer knows one vocabulary, that of OpenAI's models.
AT_ORIGIN = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from worker import import_open_clip
open_clip = import_open_clip()
import numpy as np, torch
model = open_clip.create_model(f"local-dir:{folder}").eval()
inputs = np.load(folder / "inputs.npz")
mean, std = (torch.tensor(values) for values in (model.visual.image_mean, model.visual.image_std))
pixels = ((torch.from_numpy(inputs["pixels"]).float() / 255 - mean) / std).permute(0, 3, 1, 2)
with torch.inference_mode():
    images = model.encode_image(pixels, normalize=True).numpy()
    texts = model.encode_text(torch.from_numpy(inputs["ids"]), normalize=True).numpy()
np.savez(folder / "origin.npz", images=images, texts=texts, log_scale=model.logit_scale.detach().numpy())
"""


@pytest.mark.slow
def test_open_clip_gives_the_students_embeddings(origin_python: Path, tmp_path: Path) -> None:
    teacher = load_checkpoint(DEMO_CHECKPOINT)
    student = make_student(teacher, parse_spec("resnet:blocks=1-2-1-1,width=6"), 0, [])
    generator = torch.Generator().manual_seed(1)
    noisy = {name: w + 0.03 * torch.randn(w.shape, generator=generator) for name, w in student.image_weights.items()}
    student = dataclasses.replace(student, image_weights=noisy)
    write_student(student, tmp_path, 4.0, "# A student\n")
    source, pictures = SourceTexts(load_checkpoint(tmp_path)), scenes.labelled_pictures("test", 3, size=64)[0]
    np.savez(tmp_path / "inputs.npz", pixels=pictures, ids=np.array(source.tokenizer(TEXTS)))
    command = [str(origin_python), "-c", AT_ORIGIN, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "origin.npz")
    with torch.inference_mode():
        np.testing.assert_allclose(found["images"], build_image_tower(student)(torch.from_numpy(pictures)), atol=1e-5)
    np.testing.assert_allclose(found["texts"], source.encode(TEXTS), atol=1e-5)
    assert float(found["log_scale"]) == 4.0
