"""Models in OpenCLIP's layout, from picture bytes and texts to embeddings and logits: our graphs against open_clip."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

from clipedge.export.checkpoints import Checkpoint, ModelSource, load_checkpoint
from clipedge.export.checkpoints.tokenizer import load_tokenizer_json
from clipedge.export.graphs import write_image_graph, write_text_graph
from clipedge.export.towers import build_image_tower, build_text_tower
from clipedge.images import preprocess
from clipedge.text import Tokenizer, TruncatedTextWarning

AskOrigin = Callable[..., Path]
Array = npt.NDArray[Any]

TOLERANCE = 1e-5

ODD_TEXTS = [
    "It\u2019s a \u201cquoted\u201d farmer\u2019s market",
    "HELLO\tWORLD\n\nnew",
    "!!! wow!",
    "!",
    "caf\u00e9, cafe\u0301 and \u00fcn\u00efcode \U0001f642",
    "123 4567 3.14",
    "it's we're I'LL don't",
    "\u65e5\u672c\u8a9e\u306e\u732b",
    "\u0645\u0631\u062d\u0628\u0627",
    "a <end_of_text> inside",
    "a <|endoftext|> inside",
    "\x00\x07bell\x7f",
    "\u0130stanbul",
    "\u1f48\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2",
    "\u039f\u0394\u039f\u03a3 \u0391\u03a3\u0397\u039c\u0399 \u03a3",
    "no\u00a0break \u2026 \u2014 dash",
    "\ufefffoo_bar-baz\u2028line",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "   ",
    "",
    "word " * 200,
    "x" * 400,
]
SHALLOW = {"vision_cfg": {"layers": 2}, "text_cfg": {"layers": 2}}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT-B-32": ("ViT-B-32", {}),
    "ViT-B-32-quickgelu": ("ViT-B-32-quickgelu", {"changes": SHALLOW}),
    "ViT-H-14": ("ViT-H-14", {"changes": SHALLOW}),
    "RN50": ("RN50", {"changes": {"text_cfg": {"layers": 1}}}),
    "RN50x4": ("RN50x4", {"changes": {"text_cfg": {"layers": 1}}}),
    "variant": (
        "ViT-S-32",
        {
            "changes": {
                "custom_text": True,
                "init_logit_bias": -10,
                "vision_cfg": {
                    "layers": 2,
                    "image_size": 96,
                    "no_ln_pre": True,
                    "ls_init_value": 0.5,
                    "pos_embed_type": "sin_cos_2d",
                    "final_ln_after_pool": True,
                    "norm_kwargs": {"eps": 1e-3},
                    "act_kwargs": {"approximate": "tanh"},
                },
                "text_cfg": {
                    "layers": 2,
                    "no_causal_mask": True,
                    "pool_type": "last",
                    "proj_bias": True,
                    "ls_init_value": 0.5,
                    "mlp_ratio": 3.7,
                },
            },
            "preprocess": {"resize_mode": "squash", "interpolation": "bilinear", "mean": 0.5, "std": [0.4, 0.5, 0.6]},
        },
    ),
    "end of text by its id": (
        "ViT-S-32",
        {
            "changes": {
                # Of these pixels, torchvision cuts the centre of 640 x 360 elsewhere than transformers does.
                "vision_cfg": {"layers": 1, "image_size": 128},
                "text_cfg": {"layers": 1, "pool_type": "eos", "eos_id": 49407},
            },
            "preprocess": {"interpolation": "random"},
        },
    ),
}


def run(graph: Path, inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeds,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return embeds


def token_ids(checkpoint: Checkpoint, texts: list[str]) -> Array:
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer_json, checkpoint.text.context_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        return tokenizer(texts)


def answers(checkpoint: Checkpoint, pictures: Path, workspace: Path) -> tuple[Array, Array, Array]:
    """Embeddings of the folder's pictures and of its job's texts, and their logits."""
    pixels = preprocess(sorted(pictures.glob("*.png")), checkpoint.preprocessing)
    write_image_graph(build_image_tower(checkpoint), workspace / "image.onnx")
    write_text_graph(build_text_tower(checkpoint), workspace / "text.onnx")
    image = run(workspace / "image.onnx", pixels)
    texts = json.loads((pictures / "job.json").read_text())["texts"]
    text = run(workspace / "text.onnx", token_ids(checkpoint, texts))
    return image, text, checkpoint.logit_scale * image @ text.T + checkpoint.logit_bias


def assert_equal(found: Array, expected: Array) -> None:
    """Equal raw, and after both lost their own mean: nearly equal embeddings of all inputs would hide errors."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE
    assert np.abs((found - found.mean(axis=0)) - (expected - expected.mean(axis=0))).max() <= TOLERANCE
    # The comparison means something only if the inputs' embeddings differ by far more than the tolerance.
    assert np.abs(expected - expected.mean(axis=0)).max() > 100 * TOLERANCE


def assert_as_origin(checkpoint: Checkpoint, folder: Path, workspace: Path) -> None:
    origin = load_file(folder / "origin.safetensors")
    image, text, logits = answers(checkpoint, folder, workspace)
    assert_equal(image, origin["image_embeds"])
    assert_equal(text, origin["text_embeds"])
    np.testing.assert_allclose(logits, origin["logits"], atol=2 * TOLERANCE * checkpoint.logit_scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_folders_give_what_open_clip_gives(name: str, ask_origin: AskOrigin, tmp_path: Path) -> None:
    model, job = MODELS[name]
    folder = ask_origin(model, **job)
    checkpoint = load_checkpoint(folder)
    assert_as_origin(checkpoint, folder, tmp_path)
    assert (checkpoint.activation, checkpoint.logit_bias) == (("sigmoid", -10) if name == "variant" else ("softmax", 0))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ViT-B-32-quickgelu", "RN50-quickgelu"])
def test_openai_files_give_what_open_clip_gives(model: str, ask_origin: AskOrigin, tmp_path: Path) -> None:
    changes = SHALLOW if model.startswith("ViT") else {"text_cfg": {"layers": 1}}
    folder = ask_origin(model, changes=changes, openai=True)
    archive, state = load_checkpoint(folder / "openai.pt"), load_checkpoint(folder / "openai_state.pt")
    assert_as_origin(archive, folder, tmp_path)
    assert archive.space_id == state.space_id
    assert (archive.logit_scale, archive.preprocessing) == (state.logit_scale, state.preprocessing)
    # The fp16 weights are those of the folder, rounded.
    rounded = load_checkpoint(folder)
    for name, weight in archive.image_weights.items():
        torch.testing.assert_close(weight, rounded.image_weights[name], rtol=2e-3, atol=1e-3)


@pytest.mark.slow
def test_tokenizers_of_all_kinds_give_open_clips_ids(ask_origin: AskOrigin, tmp_path: Path) -> None:
    tiny = {"layers": 1, "width": 64}
    changes = {"vision_cfg": {**tiny, "image_size": 64}, "text_cfg": {**tiny, "heads": 1}}
    folder = ask_origin("ViT-S-32", changes=changes, texts=ODD_TEXTS)
    (tmp_path / "tokenizer.json").write_bytes(load_tokenizer_json(folder))  # as transformers writes it
    expected = load_file(folder / "origin.safetensors")["input_ids"]
    for tokenizer in (None, tmp_path, tmp_path / "tokenizer.json", folder / "bpe_simple_vocab_16e6.txt.gz"):
        source = ModelSource(str(folder), tokenizer=tokenizer and str(tokenizer))
        found = token_ids(load_checkpoint(source), ODD_TEXTS)
        for text, ids, expected_ids in zip(ODD_TEXTS, found, expected, strict=True):
            np.testing.assert_array_equal(ids, expected_ids, err_msg=ascii(text))
