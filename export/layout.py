"""``--layout huggingface``: a proven bundle as a folder in the conventions of the Hugging Face hub, for other tools.

    onnx/vision_model.onnx            pixel_values float32 (batch, 3, H, W), normalised -> image_embeds (batch, D)
    onnx/vision_model_quantized.onnx  the same in INT8
    onnx/text_model.onnx              input_ids int64 (batch, tokens) -> text_embeds (batch, D); and _quantized
    config.json, preprocessor_config.json, tokenizer.json, tokenizer_config.json, ...
    clipedge-report.json, .html       the proof
    README.md                         model card

The names are those of transformers.js (https://huggingface.co/docs/transformers.js) and of optimum's split exports.
The graphs are the bundle's, with a few nodes in front: pixel values become the bytes again that they were made of,
which is exact for whatever an image processor made of a picture, and texts of any length are filled up with padding.
Embeddings are L2-normalised, there is no attention mask, and texts are no longer than the context length.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from clipedge.bundle import MANIFEST_NAME
from clipedge.calibration.storage import cpu_session, save_model
from clipedge.errors import BackendError, UsageError
from clipedge.export.checkpoints import Checkpoint
from clipedge.export.checkpoints.configs import TextConfig, VitConfig
from clipedge.export.checkpoints.huggingface.preprocessing import processor_config
from clipedge.export.checkpoints.licenses import find_license
from clipedge.export.package import TOKENIZER_NAME
from clipedge.export.report import Report, report_lines
from clipedge.manifest import Manifest, Precision, Preprocessing, Target, TowerName, Variant
from clipedge.selftest import GOLDEN_NAME, TENSORS

__all__ = ["LAYOUTS", "Layout", "check_layout", "to_huggingface"]

Layout = Literal["bundle", "huggingface"]
LAYOUTS: tuple[Layout, ...] = ("bundle", "huggingface")

GRAPHS: dict[TowerName, str] = {"image": "vision_model", "text": "text_model"}
SUFFIXES: dict[Precision, str] = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}  # FP8 is for TensorRT alone
# What a folder of transformers has beside its weights.
CARRIED = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
TOLERANCE = 1e-5  # between a graph and its twin with nodes in front, which computes the same


def check_layout(layout: str, variants: Sequence[tuple[Precision, Target]]) -> None:
    """Raises UsageError for an unknown layout, for two INT8 graphs where the conventions have one name, and for graphs
    that TensorRT would not take: its rules know no bytes between two nodes."""
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    if layout == "huggingface" and any(target == "tensorrt" for _, target in variants):
        raise UsageError(
            "the graphs of --layout huggingface make bytes of float pixels, which TensorRT does not take; "
            "export --target tensorrt as a bundle"
        )
    if layout == "huggingface" and len(targets := [target for kind, target in variants if kind == "int8"]) > 1:
        raise UsageError(
            f"the hub's conventions have one name for an INT8 graph, found {' and '.join(targets)}; "
            "export each target to a folder of its own"
        )


def to_huggingface(folder: Path, name: str, checkpoint: Checkpoint, manifest: Manifest, report: Report) -> None:
    """Turn the bundle in ``folder``, which will be called ``name``, into a folder of the hub's conventions.

    Raises BackendError if a graph gives other embeddings than the one that was proven.
    """
    (folder / "onnx").mkdir()
    goldens = load_file(folder / GOLDEN_NAME)
    for variant in manifest.variants:
        _write_graph(folder, variant, checkpoint, goldens)
    for path in [folder / MANIFEST_NAME, folder / GOLDEN_NAME, *folder.glob("*.onnx*")]:
        path.unlink()
    shutil.rmtree(folder / "prompts", ignore_errors=True)
    for path in folder.glob("report.*"):
        path.rename(folder / f"clipedge-{path.name}")
    _write_settings(folder, checkpoint)
    (folder / "README.md").write_text(_card(name, manifest, report), encoding="utf-8", errors="backslashreplace")


def _write_graph(folder: Path, variant: Variant, checkpoint: Checkpoint, goldens: dict[str, NDArray[Any]]) -> None:
    proven = onnx.load(folder / variant.files[0].path)
    graph = onnx.ModelProto()
    graph.CopyFrom(proven)
    inputs_name, _ = TENSORS[variant.tower]
    inputs = goldens[inputs_name][:4]
    if variant.tower == "image":
        _take_pixel_values(graph, checkpoint.preprocessing)
        mean, std = (np.array(values) for values in (checkpoint.preprocessing.mean, checkpoint.preprocessing.std))
        fed = ((inputs / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    else:
        _take_any_length(graph, json.loads(checkpoint.tokenizer_json)["padding"]["pad_id"])
        fed = inputs
    expected, found = (_run(model, values) for model, values in ((proven, inputs), (graph, fed)))
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise BackendError(
            f"the {variant.tower} graph for other tools gives other embeddings than the one that was proven (by "
            f"{difference:.1e}, expected {TOLERANCE:.0e} at most); export without --layout"
        )
    save_model(graph, folder / "onnx" / f"{GRAPHS[variant.tower]}{SUFFIXES[variant.precision]}.onnx")


def _run(model: onnx.ModelProto, inputs: NDArray[Any]) -> NDArray[np.float32]:
    session = cpu_session(model)
    embeds: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return embeds


def _take_pixel_values(model: onnx.ModelProto, preprocessing: Preprocessing) -> None:
    """Float pixels, (p / 255 - mean) / std, channels first, in place of the bytes p, channels last."""
    pixels = model.graph.input[0].name
    constants = {
        "pixel_values.std": 255 * np.array(preprocessing.std, np.float32),
        "pixel_values.mean": 255 * np.array(preprocessing.mean, np.float32),
        "pixel_values.low": np.array(0, np.float32),
        "pixel_values.high": np.array(255, np.float32),
    }
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Mul", ["pixel_values.std"], {}),
        ("Add", ["pixel_values.mean"], {}),
        ("Round", [], {}),
        ("Clip", ["pixel_values.low", "pixel_values.high"], {}),
        ("Cast", [], {"to": TensorProto.UINT8}),
    ]
    nodes, value = [], "pixel_values"
    for operator, further, attributes in steps:
        output = pixels if operator == "Cast" else f"pixel_values.{operator.lower()}"
        nodes.append(helper.make_node(operator, [value, *further], [output], name=output, **attributes))
        value = output
    shape = ["batch", 3, preprocessing.height, preprocessing.width]
    _put_in_front(model, nodes, constants, helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, shape))


def _take_any_length(model: onnx.ModelProto, pad_id: int) -> None:
    """Texts of up to the context length. Longer ones are left as they are, and the engine refuses them."""
    context_length = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    ids, filled = "input_ids", "input_ids.filled"
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == ids:
                node.input[place] = filled
    constants = {
        "context_length": np.array([context_length], np.int64),
        "no_padding": np.array([0], np.int64),
        "pad_id": np.array(pad_id, np.int64),
    }
    nodes = [
        helper.make_node("Shape", [ids], ["input_ids.length"], name="input_ids.length", start=1, end=2),
        helper.make_node("Sub", ["context_length", "input_ids.length"], ["input_ids.room"], name="input_ids.room"),
        helper.make_node("Max", ["input_ids.room", "no_padding"], ["input_ids.missing"], name="input_ids.missing"),
        helper.make_node(
            "Concat", [*["no_padding"] * 3, "input_ids.missing"], ["input_ids.pads"], name="input_ids.pads", axis=0
        ),
        helper.make_node("Pad", [ids, "input_ids.pads", "pad_id"], [filled], name=filled),
    ]
    _put_in_front(
        model, nodes, constants, helper.make_tensor_value_info(ids, TensorProto.INT64, ["batch", "sequence_length"])
    )


def _put_in_front(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    new_input: onnx.ValueInfoProto,
) -> None:
    behind = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:], model.graph.value_info[:]
    model.graph.input.append(new_input)
    model.graph.node.extend([*nodes, *behind])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def _write_settings(folder: Path, checkpoint: Checkpoint) -> None:
    """The source's own files where it is a folder of transformers, else what these say, written from the checkpoint."""
    source = Path(checkpoint.source.model)
    with_text = (folder / TOKENIZER_NAME).is_file()
    if (source / "preprocessor_config.json").is_file() or (source / "processor_config.json").is_file():
        for name in CARRIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        return
    documents = {
        "config.json": _config(checkpoint),
        "preprocessor_config.json": processor_config(checkpoint.preprocessing),
    }
    if with_text:
        documents["tokenizer_config.json"] = _tokenizer_config(checkpoint)
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """transformers' CLIPConfig; of towers that it has no words for only the sizes of what goes in."""
    image, text = checkpoint.image, checkpoint.text
    vision: dict[str, Any] = {"image_size": checkpoint.preprocessing.height}
    if isinstance(image, VitConfig):
        vision |= {"patch_size": image.patch_size, **_transformer(image)}
    words: dict[str, Any] = {"max_position_embeddings": text.context_length}
    if isinstance(text, TextConfig):
        words |= {"vocab_size": text.vocab_size, "eos_token_id": text.eos_token_id, **_transformer(text)}
    return {
        "model_type": "clip" if checkpoint.activation == "softmax" else "siglip",
        "projection_dim": checkpoint.embed_dim,
        "logit_scale_init_value": math.log(checkpoint.logit_scale),
        "vision_config": vision,
        "text_config": words,
    }


def _transformer(config: VitConfig | TextConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": "gelu_pytorch_tanh" if config.activation == "gelu_tanh" else config.activation,
        "layer_norm_eps": config.eps,
    }


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json.decode())
    tokenizer.no_padding()
    tokens = tokenizer.encode("").tokens
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": checkpoint.text.context_length,
        "bos_token": tokens[0],
        "eos_token": tokens[-1],
    }
    # transformers would find OpenCLIP's padding, which is "!", inside texts. Behind its end a text may have anything,
    # unless the tower looks for padding.
    padding = json.loads(checkpoint.tokenizer_json)["padding"]["pad_token"]
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    if padding in special:
        return {**config, "pad_token": padding}
    looks_for_padding = not isinstance(checkpoint.text, TextConfig) or checkpoint.text.class_token
    return config if looks_for_padding else {**config, "pad_token": tokens[-1]}


def _card(name: str, manifest: Manifest, report: Report) -> str:
    license = find_license(manifest.provenance.source_license)
    front_matter = f"license: {license.id}\n" if license.id and " " not in license.id else ""
    proof = "\n".join(report_lines(report))
    return f"""---
{front_matter}library_name: onnx
pipeline_tag: zero-shot-image-classification
---

# {report.model}, {report.precision}

ONNX graphs in the hub's conventions, written and proven by ClipEdge ({name}).

- Source model: {manifest.provenance.source_model} (SHA-256 of its weights {manifest.provenance.source_sha256[:16]}…)
- Licence: {license.name} ({license}). It is the source model's; these files are made from that model and inherit it.
- `onnx/vision_model*.onnx`: `pixel_values` as the image processor makes them to `image_embeds`; what no processor made
  of a picture's bytes is rounded to the nearest byte. `onnx/text_model*.onnx`: `input_ids` to `text_embeds`, without an
  attention mask, of {manifest.context_length or "no"} tokens at most. Embeddings are L2-normalised.
- A picture and a text match with the probability {manifest.activation}({manifest.logit_scale:.4f} * cosine
  {manifest.logit_bias:+.4f}).

## Proof

```
{proof}
```
"""
