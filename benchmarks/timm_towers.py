"""Which of timm's networks can be students: of each family a small one, put to the check that distill begins with.

    PYTHONPATH=tests/origin/site .venv-origin/bin/python benchmarks/timm_towers.py [--names NAME ...]

The check (clipedge.export.distillation.exportable.check_student) builds the network with new weights, runs it on
pictures of the teacher's size, has export read it and write its graph, and compares the graph in ONNX Runtime with the
network. The teacher has the size that a network is made for where it takes no other, else 224 pixels. Nothing is
trained and nothing quantized here. Each network is tried in a process of its own, for five minutes at most. Writes
results/timm_towers.md and .json beside this file, and prints the former.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from machine import describe_machine
from publish import publish

from clipedge.errors import UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.distillation.exportable import check_student
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.training.batch_norms import has_statistics

SIZE, SECONDS = 224, 300
NAMES = (
    *("resnet18", "resnetv2_18", "regnetx_002", "regnety_002", "repvgg_a0", "densenet121", "vgg11_bn", "dla34"),
    *("mobilenetv2_050", "mobilenetv3_small_100", "mobilenetv4_conv_small", "efficientnet_b0", "mnasnet_050"),
    *("ghostnet_050", "lcnet_050", "tinynet_e", "rexnet_100", "hardcorenas_a", "hgnetv2_b0", "repvit_m0_9"),
    *(
        "repghostnet_050",
        "fasternet_t0",
        "starnet_s1",
        "mobileone_s0",
        "fastvit_t8",
        "fastvit_mci0",
        "edgenext_xx_small",
    ),
    *("convnext_atto", "convnextv2_atto", "inception_next_atto", "mambaout_femto", "nf_regnet_b0", "poolformer_s12"),
    *("mobilevit_xxs", "mobilevitv2_050", "efficientformerv2_s0", "efficientvit_b0", "efficientvit_m0", "levit_128s"),
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_small_patch16_dinov3", "eva02_tiny_patch14_224"),
    *("vit_medium_patch16_gap_256", "vit_relpos_small_patch16_224", "beit_base_patch16_224", "cait_xxs24_224"),
    *("tiny_vit_5m_224", "vitamin_small_224", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "xcit_nano_12_p16_224"),
    *("mixer_s32_224", "vit_base_mci_224", "coatnet_pico_rw_224", "hiera_tiny_224"),
)


@dataclass(frozen=True)
class Tried:
    """``said`` is why a network is refused, None where it is taken; ``seconds`` are those of the check."""

    name: str
    size: int
    parameters: int
    batch_norms: bool
    seconds: float
    said: str | None


def size_of(name: str) -> int:
    released = timm.get_pretrained_cfg(name)
    return int(released.input_size[1]) if released is not None and released.fixed_input_size else SIZE


def teacher_for(size: int) -> Checkpoint:
    """The demonstration model, as if its pictures had this size; its image tower is not asked."""
    demo = load_checkpoint(DEMO_CHECKPOINT)
    sizes = {"height": size, "width": size, "shortest_edge": size}
    return dataclasses.replace(demo, preprocessing=dataclasses.replace(demo.preprocessing, **sizes))


def attempt(name: str) -> Tried:
    size, said = size_of(name), None
    network = timm.create_model(name, pretrained=False, num_classes=0)
    parameters = sum(weight.numel() for weight in network.parameters())
    started = time.perf_counter()
    try:
        check_student(teacher_for(size), parse_spec(f"timm:{name}"), 2)
    except UsageError as error:
        said = str(error)
    return Tried(name, size, parameters, has_statistics(network), time.perf_counter() - started, said)


def attempted(name: str, folder: Path) -> Tried:
    """The same in a forked process, which may fail in any way."""
    path = folder / f"{name}.json"
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        try:
            torch.set_num_threads(1)
            path.write_text(json.dumps(dataclasses.asdict(attempt(name))), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if path.exists():
        return Tried(**json.loads(path.read_text(encoding="utf-8")))
    return Tried(name, size_of(name), 0, False, SECONDS, f"the process ended with {status}: time, memory, or an error")


def markdown(document: dict[str, Any]) -> str:
    machine, rows = document["machine"], document["rows"]
    taken = [row for row in rows if row["said"] is None]
    lines = [
        "# Students from timm",
        "",
        f"timm {document['timm']}; a small network of each of {len(rows)} families, with new weights: {len(taken)} can",
        "be students. The check builds and runs it, has export read it and write its float graph, and compares that in",
        f"ONNX Runtime. {machine['cpu']}, one thread, beside other programs, {machine['date']}.",
        "",
        "| network | pixels | parameters | BatchNorm | seconds |",
        "|---|---:|---:|---|---:|",
        *(
            f"| `{row['name']}` | {row['size']} | {row['parameters'] / 1e6:.1f} M | "
            f"{'yes' if row['batch_norms'] else ''} | {row['seconds']:.0f} |"
            for row in taken
        ),
        "",
        "Refused:",
        "",
        *(f"- `{row['name']}`: {row['said'].partition('found ')[2] or row['said']}" for row in rows if row["said"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES, help="other networks than one of each family")
    names = parser.parse_args().names
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows.append(dataclasses.asdict(attempted(name, Path(folder))))
            print(rows[-1], file=sys.stderr, flush=True)
    document = {"machine": describe_machine(), "timm": timm.__version__, "rows": rows}
    if names is NAMES:
        publish("timm_towers", document, markdown(document))
    else:
        print(markdown(document))


if __name__ == "__main__":
    main()
