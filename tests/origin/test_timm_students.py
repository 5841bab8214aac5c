"""Students of timm's towers: trained with BatchNorms, killed, shared, saved for open_clip, exported, proven."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.torch import load_file

import clipedge
from clipedge.calibration import scenes
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.training.folder import write_student

RunAtOrigin = Callable[..., str]
Found = dict[str, dict[str, Any]]

TOLERANCE = 1e-5
BIG = 160  # pixels that timm's smallest plain vision transformer takes
# Specifications, how many pictures they see together, and what is said of them.
REFUSED = {
    "timm:resnet1": (8, "no architecture of this name; did you mean resnet"),
    "timm:vit_tiny_patch16_224": (8, "takes pictures of 224 pixels and no others, the teacher's have 64"),
    "timm:test_resnet": (1, "expected 2 or more to be seen together, found 1"),
}
AT_ORIGIN = """
import sys
import numpy as np, open_clip, torch
model = open_clip.create_model(f"local-dir:{sys.argv[1]}").eval()
pixels = torch.from_numpy(np.load(sys.argv[2])).float() / 255
mean, std = (torch.tensor(values) for values in (model.visual.image_mean, model.visual.image_std))
with torch.inference_mode():
    embeds = model.encode_image(((pixels - mean) / std).permute(0, 3, 1, 2), normalize=True)
np.save(sys.argv[3], embeds.numpy())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to learn from and, in folders for their classes, to be examined on."""
    place = tmp_path_factory.mktemp("timm")
    scenes.write_folder(place / "pictures", "train", 96, width=64, height=64)
    scenes.write_folder(place / "exam", "validation", 48, width=64, height=64, by_label=True)
    return place


@pytest.fixture(scope="module")
def found(run_at_origin: RunAtOrigin, folder: Path) -> Found:
    """What each job of ``timm_worker.py`` finds."""
    asked = [(name, together) for name, (together, _) in REFUSED.items()]
    (folder / "refusals.json").write_text(json.dumps(asked))
    printed = run_at_origin(str(Path(__file__).with_name("timm_worker.py")), str(folder))
    jobs: Found = json.loads(printed.splitlines()[-1])
    return jobs


def pixels_of(size: int) -> NDArray[np.uint8]:
    return scenes.labelled_pictures("test", 12, size=size)[0]


def teacher_of(size: int, folder: Path) -> Path:
    """The demonstration model with an image tower for pictures of this size, which has learned nothing."""
    demo = load_checkpoint(DEMO_CHECKPOINT)
    sizes = {"height": size, "width": size, "shortest_edge": size}
    teacher = dataclasses.replace(demo, preprocessing=dataclasses.replace(demo.preprocessing, **sizes))  # type: ignore[arg-type]
    write_student(make_student(teacher, parse_spec("vit:layers=1,width=64,heads=2,patch=32"), 0, ()), folder, 4.0, "")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [("test_resnet", 64, "trunk.layer4.0.bn2"), ("test_vit", BIG, "trunk.blocks.5.attn.qkv")],
    ids=["resnet", "vit"],
)
def test_from_the_teacher_to_a_proven_bundle(
    name: str, size: int, layer: str, folder: Path, run_at_origin: RunAtOrigin, tmp_path: Path
) -> None:
    """A convolutional tower with BatchNorms, and a plain vision transformer."""
    student = tmp_path / "student"
    teacher = ["--teacher", str(teacher_of(size, tmp_path / "teacher"))] if size == BIG else []
    data = ["--data", str(folder / "pictures"), "--validation", str(folder / "exam")]
    numbers = [
        "--steps",
        "8",
        "--batch-size",
        "16",
        "--validate-every",
        "8",
        "--views",
        "1",
        "--learning-rate",
        "0.003",
    ]
    printed = run_at_origin(
        *("-m", "clipedge", "distill", "--student", f"timm:{name}", *teacher, *data, *numbers),
        *("--output", str(student), "--export", "fp32,int8", "--json"),
    )
    result = json.loads(printed)
    assert result["student_tower"]["architecture"] == f"{name}, {size} pixels, built by open_clip"
    report = json.loads((student / "bundle" / "report.int8.x86.json").read_text())
    assert report["passed"] and not report["failures"]
    assert layer in [entry["layer"] for entry in report["layers"]]
    clip = clipedge.load(student / "bundle", variant="fp32")
    assert clip.manifest.space_id == result["space_id"]
    np.save(tmp_path / "pixels.npy", pixels_of(size))
    run_at_origin("-c", AT_ORIGIN, str(student), str(tmp_path / "pixels.npy"), str(tmp_path / "embeds.npy"))
    embeds, origin = clip.encode_image(pixels_of(size)), np.load(tmp_path / "embeds.npy")
    np.testing.assert_allclose(embeds, origin, atol=TOLERANCE)
    assert np.abs(origin - origin.mean(axis=0)).max() > 100 * TOLERANCE


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_statistics(found: Found, folder: Path) -> None:
    assert found["kill"]["kills"] >= 2
    for suffix in (".safetensors", ".0.trained"):
        assert (folder / f"whole{suffix}").read_bytes() == (folder / f"killed{suffix}").read_bytes()
    state = load_file(folder / "whole.safetensors")
    for kind in ("weights", "average", "best"):
        assert f"{kind}.source.trunk.bn1.running_var" in state


@pytest.mark.slow
def test_statistics_are_averaged_as_the_weights_are(found: Found) -> None:
    averaged = found["average"]
    assert averaged["furthest"] < 1e-5 and averaged["moved"] > 5
    assert averaged["counts"] == [*range(1, 13)]


@pytest.mark.slow
def test_two_processes_average_their_statistics(found: Found) -> None:
    """The mean over both shares is that of the batch where nothing was normalised before."""
    shared = found["share"]
    assert shared["equal"]
    assert shared["first"] < 1e-6 < 1e-3 < shared["size"]
    assert shared["furthest"] > 1e-6  # behind norms of their own they see something else


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_student_is_refused_before_anything_is_trained(name: str, found: Found) -> None:
    assert REFUSED[name][1] in found["refusals"][name]


@pytest.mark.slow
def test_a_tower_with_a_reader_is_exported_by_it(found: Found) -> None:
    """MobileCLIP's: trained with branches and BatchNorms, folded when it is read."""
    read = found["readers"]
    assert read["config"] == "FastVitConfig" and read["same_space"]
    assert read["apart"] < 1e-6 < 1e-3 < read["spread"]
