"""Models that are large: time and memory of exporting ViT-L/14 to INT8, and ViT-H/14's image tower to float32.

    python benchmarks/export_large.py

ViT-L/14 (428 million parameters, both towers) has to stay below 8 GB, all processes together. ViT-H/14's image tower
(632 million parameters) takes more than the 2 GiB of an ONNX file: its weights have to lie beside the graph, and the
bundle has to load and to give the source's embeddings. Weights are seeded and random, the machine is held to two cores;
how it is measured, ``export_cost.py`` says. Writes results/export_large.md and .json, and prints the former.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export_cost import CORES, make_pictures, measured_export
from layout import BUILD
from machine import describe_machine
from prepare import random_weight
from publish import publish, target_lines

import clipedge
from clipedge.manifest import Precision

PICTURES = 48  # two thirds calibrate, one third proves
MAX_BYTES = 8e9
# transformers' CLIPConfig, of openai/clip-vit-large-patch14 and of laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
VIT_L: dict[str, Any] = {
    "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
VIT_H: dict[str, Any] = {
    "projection_dim": 1024,
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "gelu",
    },
    # Not exported here: without a tokenizer an export leaves the text tower out.
    "text_config": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1},
}


def make_model(folder: Path, settings: Mapping[str, Any], with_text: bool) -> int:
    """Save a CLIP with seeded random weights as transformers does; its number of parameters."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from clipedge.export.checkpoints import DEMO_CHECKPOINT

    config = CLIPConfig(**settings)
    if with_text:  # the demonstration model's tokenizer: what the texts say does not matter here
        for name in ("tokenizer.json", "tokenizer_config.json"):
            folder.mkdir(exist_ok=True)
            shutil.copyfile(DEMO_CHECKPOINT / name, folder / name)
        demo = json.loads((DEMO_CHECKPOINT / "config.json").read_text(encoding="utf-8"))
        config.text_config.eos_token_id = demo["text_config"]["eos_token_id"]
    with torch.device("meta"):
        model = CLIPModel(config)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.state_dict().items():
        weight.copy_(random_weight(name, torch.randn(weight.shape, generator=generator)))
    model.save_pretrained(folder)
    size = config.vision_config.image_size
    processor = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "CLIPImageProcessor", **processor})
    )
    return sum(parameter.numel() for parameter in model.parameters())


def measure(name: str, settings: Mapping[str, Any], precision: Precision, with_text: bool) -> dict[str, Any]:
    """One export, and what its bundle weighs once it was loaded."""
    print(f"exporting {name} to {precision}", file=sys.stderr, flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        checkpoint, pictures = Path(scratch, "checkpoint"), Path(scratch, "pictures")
        parameters = make_model(checkpoint, settings, with_text)
        make_pictures(pictures, PICTURES)
        found = measured_export(checkpoint, pictures, Path(scratch), precision)
        clip = clipedge.load(Path(scratch, "bundle"))  # proves a golden input
        files = {path.name: path.stat().st_size for path in sorted(Path(scratch, "bundle").glob("*.onnx*"))}
        engine = clip.image_engine.name
    return {"name": name, "precision": precision, "parameters": parameters, "files": files, "loads_in": engine, **found}


def judge(large: Mapping[str, Any], huge: Mapping[str, Any]) -> list[dict[str, Any]]:
    beside = max(size for name, size in huge["files"].items() if name.endswith(".data"))
    return [
        {
            "text": f"{large['name']}: at most {MAX_BYTES / 1e9:g} GB, all processes",
            "found": f"{large['all_processes_bytes'] / 1e9:.2f} GB",
            "met": large["all_processes_bytes"] <= MAX_BYTES,
        },
        {
            "text": f"{huge['name']}: weights beyond 2 GiB lie beside the graph and load",
            "found": f"{beside / 2**30:.2f} GiB beside it, loaded in {huge['loads_in']}",
            "met": beside > 2**31,
        },
    ]


def markdown(runs: list[dict[str, Any]], targets: list[dict[str, Any]], machine: dict[str, Any]) -> str:
    """The tables, and what of the acceptance is met."""
    lines = [
        "# Exporting large models",
        "",
        f"{CORES} cores of {machine['cpu']}; {machine['date']}. {PICTURES * 2 // 3} calibration pictures.",
        "",
        "| model | parameters, millions | precision | seconds | largest process, GB | all processes, GB "
        "| ONNX files, MB | median centred cosine |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
        *(
            f"| {run['name']} | {run['parameters'] / 1e6:.0f} | {run['precision']} | {run['seconds']:.0f} "
            f"| {run['largest_process_bytes'] / 1e9:.2f} | {run['all_processes_bytes'] / 1e9:.2f} "
            f"| {sum(run['files'].values()) / 1e6:.0f} | {run['median_centred_cosine']:.4f} |"
            for run in runs
        ),
        "",
        *target_lines(targets),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    runs = [
        measure("ViT-L/14, both towers", VIT_L, "int8", with_text=True),
        measure("ViT-H/14, image tower", VIT_H, "fp32", with_text=False),
    ]
    targets, machine = judge(*runs), describe_machine()
    page = markdown(runs, targets, machine)
    document = {"machine": machine, "exports": runs, "targets": targets}
    publish("export_large", document, page)


if __name__ == "__main__":
    main()
