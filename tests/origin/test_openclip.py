"""Models in OpenCLIP's layout, from picture bytes and texts to embeddings and logits: our graphs against open_clip."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from clipedge.export.checkpoints import Checkpoint, ModelSource, load_checkpoint
from clipedge.export.checkpoints.tokenizer import load_tokenizer_json
from clipedge.text import Tokenizer, TruncatedTextWarning

AskOrigin = Callable[..., Path]
AssertAsOrigin = Callable[[Checkpoint, Path, Path], None]

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
SMALL_TEXT = {"text_cfg": {"layers": 1, "width": 64, "heads": 1}}
SHALLOW = {"vision_cfg": {"layers": 2}, "text_cfg": {"layers": 2}}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT-B-32": ("ViT-B-32", {}),
    "ViT-B-32-quickgelu": ("ViT-B-32-quickgelu", {"changes": SHALLOW}),
    "ViT-H-14": ("ViT-H-14", {"changes": SHALLOW}),
    "RN50": ("RN50", {"changes": SMALL_TEXT}),
    "RN50x4": ("RN50x4", {"changes": SMALL_TEXT}),
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


def assert_ids_as_origin(checkpoint: Checkpoint, folder: Path) -> None:
    texts = json.loads((folder / "job.json").read_text())["texts"]
    tokenizer = Tokenizer.from_file(checkpoint.tokenizer_json, checkpoint.text.context_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedTextWarning)
        found = tokenizer(texts)
    expected = load_file(folder / "origin.safetensors")["input_ids"]
    for text, ids, expected_ids in zip(texts, found, expected, strict=True):
        np.testing.assert_array_equal(ids, expected_ids, err_msg=ascii(text))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_folders_give_what_open_clip_gives(
    name: str, ask_origin: AskOrigin, assert_as_origin: AssertAsOrigin, tmp_path: Path
) -> None:
    model, job = MODELS[name]
    folder = ask_origin(tmp_path / "origin", model, **job)
    checkpoint = load_checkpoint(folder)
    assert_as_origin(checkpoint, folder, tmp_path)
    assert_ids_as_origin(checkpoint, folder)
    assert (checkpoint.activation, checkpoint.logit_bias) == (("sigmoid", -10) if name == "variant" else ("softmax", 0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "changes"),
    [("ViT-B-32-quickgelu", SHALLOW), ("RN50-quickgelu", {"vision_cfg": {"layers": [1, 2, 1, 1]}, **SMALL_TEXT})],
)
def test_openai_files_give_what_open_clip_gives(
    model: str, changes: Any, ask_origin: AskOrigin, assert_as_origin: AssertAsOrigin, tmp_path: Path
) -> None:
    folder = ask_origin(tmp_path / "origin", model, changes=changes, openai=True)
    archive, state = load_checkpoint(folder / "openai.pt"), load_checkpoint(folder / "openai_state.pt")
    assert_as_origin(archive, folder, tmp_path)
    assert_ids_as_origin(archive, folder)
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
    folder = ask_origin(tmp_path / "origin", "ViT-S-32", changes=changes, texts=ODD_TEXTS)
    (tmp_path / "tokenizer.json").write_bytes(load_tokenizer_json(folder))  # as transformers writes it
    for tokenizer in (None, tmp_path, tmp_path / "tokenizer.json", folder / "bpe_simple_vocab_16e6.txt.gz"):
        source = ModelSource(str(folder), tokenizer=tokenizer and str(tokenizer))
        assert_ids_as_origin(load_checkpoint(source), folder)
