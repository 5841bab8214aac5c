"""Files of weights: OpenAI's, recognised by their tensors, and state dicts of a named architecture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import clipedge
from clipedge.calibration import scenes
from clipedge.errors import CheckpointError, UsageError
from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT, ModelSource, architectures, load_checkpoint
from clipedge.export.checkpoints.architectures import architecture_named, architectures_like
from clipedge.export.checkpoints.openclip.config import openclip_model, text_config
from clipedge.export.checkpoints.openclip.openai import infer_model
from clipedge.export.checkpoints.openclip.weights import resnet_layout, text_layout, vit_layout
from clipedge.export.checkpoints.tensors import Shape, StoredTensor

# Counted by open_clip 3.3 of its own models.
PARAMETERS = {
    "ViT-S-32": 63085825,
    "ViT-S-16": 62257537,
    "ViT-M-32": 103119873,
    "ViT-M-16": 102015489,
    "ViT-B-32": 151277313,
    "ViT-B-32-256": 151288833,
    "ViT-B-32-plus-256": 210297473,
    "ViT-B-16": 149620737,
    "ViT-B-16-plus": 208351361,
    "ViT-B-16-plus-240": 208377345,
    "ViT-L-16": 427739393,
    "ViT-L-16-320": 427948289,
    "ViT-L-14": 427616513,
    "ViT-L-14-280": 427763969,
    "ViT-L-14-336": 427944193,
    "ViT-H-16": 986263041,
    "ViT-H-14": 986109441,
    "ViT-H-14-378": 986714881,
    "ViT-g-14": 1366678273,
    "ViT-bigG-14": 2539567105,
    "RN50": 102007137,
    "RN101": 119688033,
    "RN50x4": 178300601,
    "RN50x16": 290979217,
    "RN50x64": 623258305,
}
OPENAIS = ("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64")

TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 64, "layers": 1},
    "text_cfg": {"context_length": 7, "vocab_size": 20, "width": 64, "heads": 1, "layers": 1},
}
MARKS = {"input_resolution": 24, "context_length": 7, "vocab_size": 20}


def shapes_of(model_cfg: dict[str, Any]) -> dict[str, Shape]:
    model = openclip_model(Path("file"), model_cfg)
    image = resnet_layout if isinstance(model.vision.values["layers"], list) else vit_layout
    return {**image(model).shapes, **text_layout(model, "").shapes, "logit_scale": ()}


def tiny_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(shape, generator=generator).half() for name, shape in shapes_of(TINY).items()}
    return {**tensors, "logit_scale": torch.tensor(math.log(60.0))}


def marks() -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in MARKS.items()}


@pytest.fixture
def tiny_name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(architectures.ARCHITECTURES, "ViT-tiny", TINY)  # type: ignore[arg-type]
    return "ViT-tiny"


def refuse(source: ModelSource, message: str, error: type[Exception] = CheckpointError) -> None:
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PARAMETERS)
def test_architectures_have_as_many_parameters_as_open_clips(name: str) -> None:
    sizes = [
        math.prod(shape) for tensor, shape in shapes_of(architecture_named(name)).items() if ".running_" not in tensor
    ]
    assert sum(sizes) == PARAMETERS[name]


@pytest.mark.parametrize("name", OPENAIS)
def test_openais_architectures_are_told_by_their_tensors(name: str) -> None:
    place, document = Path("file"), architecture_named(name)
    stored = {key: StoredTensor(place, shape, "F16", torch.empty) for key, shape in shapes_of(document).items()}
    inferred = infer_model(place, stored)
    assert architectures_like(inferred) == [name]
    found, named = openclip_model(place, inferred), openclip_model(place, document)
    image = resnet_layout if name.startswith("RN") else vit_layout
    assert (image(found).config, text_config(found)) == (image(named).config, text_config(named))


def test_openais_own_files_have_quick_gelu(tmp_path: Path) -> None:
    torch.save({**tiny_tensors(), **marks()}, tmp_path / "ViT-tiny.pt")
    checkpoint = load_checkpoint(tmp_path / "ViT-tiny.pt")
    assert (checkpoint.name, checkpoint.license) == ("ViT-tiny", None)
    assert (checkpoint.image.activation, checkpoint.text.activation) == ("quick_gelu", "quick_gelu")
    assert (checkpoint.preprocessing.interpolation, checkpoint.preprocessing.shortest_edge) == ("bicubic", 24)
    with pytest.raises(CheckpointError, match=r"16e6\.txt\.gz, found none of them; name one with --tok"):
        _ = checkpoint.tokenizer_json


def test_a_state_dict_needs_its_architecture_named(tmp_path: Path, tiny_name: str) -> None:
    path = tmp_path / "epoch_3.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tiny_tensors().items()}}, path)
    refuse(ModelSource(str(path)), "QuickGELU.* Pass --arch ViT-tiny-quickgelu or --arch ViT-tiny$")
    assert load_checkpoint(ModelSource(str(path), arch=tiny_name)).image.activation == "gelu"
    quick = load_checkpoint(ModelSource(str(path), arch=f"{tiny_name}-quickgelu"))
    assert (quick.image.activation, quick.name) == ("quick_gelu", "epoch_3")
    save_file(tiny_tensors(), tmp_path / "weights.safetensors")
    assert load_checkpoint(ModelSource(str(tmp_path / "weights.safetensors"), arch=tiny_name)).embed_dim == 16


def test_an_architecture_that_is_not_the_files_is_refused(tmp_path: Path, tiny_name: str) -> None:
    path = tmp_path / "ViT-tiny.pt"
    torch.save({**tiny_tensors(), **marks()}, path)
    refuse(
        ModelSource(str(path), arch=tiny_name),
        "is OpenAI's, whose models have QuickGELU; --arch ViT-tiny has GELU .* Pass --arch ViT-tiny-quickgelu",
        UsageError,
    )
    assert load_checkpoint(ModelSource(str(path), arch=f"{tiny_name}-quickgelu")).image.activation == "quick_gelu"
    refuse(ModelSource(str(path), arch="ViT-B-32-quickgelu"), "the weights lack transformer.resblocks.1")
    refuse(ModelSource(str(path), arch="ViT-Z-99"), "unknown architecture 'ViT-Z-99'; there are: .*RN50x64", UsageError)


def test_a_folder_says_its_architecture_itself() -> None:
    refuse(
        ModelSource(str(DEMO_CHECKPOINT), arch="ViT-B-32"),
        r"is a Hugging Face folder \(clip\), which says its architecture itself; --arch ViT-B-32 is for a file",
        UsageError,
    )


def test_files_that_are_no_clip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bert.pt"
    torch.save({"bert.embeddings": torch.zeros(3, 4)}, path)
    refuse(ModelSource(str(path)), "found no text_projection .* name its architecture with --arch")
    truncated = tiny_tensors()
    truncated["visual.conv1.weight"] = torch.zeros(4)
    torch.save({**truncated, **marks()}, path)
    refuse(ModelSource(str(path)), "found no visual.conv1.weight of 4 or more dimensions")
    path.write_bytes(b"\x80")
    refuse(ModelSource(str(path)), "is damaged|holds more than tensors")


def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    tensors = {**tiny_tensors(), **marks(), "transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(100, 64)}
    torch.save(tensors, tmp_path / "tiny.pt")
    refuse(ModelSource(str(tmp_path / "tiny.pt")), r"resblocks.0.mlp.c_fc.weight has the shape \[100, 64\]")


@pytest.mark.slow
def test_a_file_of_weights_is_exported(tmp_path: Path) -> None:
    torch.save({**tiny_tensors(), **marks()}, tmp_path / "ViT-tiny.pt")
    scenes.write_folder(tmp_path / "photos", "calibration", 24)
    bundle = tmp_path / "bundle"
    report = export(
        tmp_path / "ViT-tiny.pt", bundle, precision="fp32", calibration_data=tmp_path / "photos", text=False
    )
    assert (report.model, report.passed) == ("ViT-tiny", True)
    assert clipedge.load(bundle).manifest.preprocessing.crop_offset == "half-even"  # as OpenAI's torchvision cuts
