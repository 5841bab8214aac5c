"""Which of timm's networks can be students: of each family a small one, put to the check that distill begins with.

    PYTHONPATH=tests/origin/site .venv-origin/bin/python benchmarks/timm_towers.py [--names NAME ...]

The check (clipedge.export.distillation.exportable.check_student) builds the network with new weights, runs it on
pictures of the teacher's size, has export read it and write its graph, and compares the graph in ONNX Runtime with the
network. The teacher has the size that a network is made for where it takes no other, else the demonstration model's.
Nothing is trained and nothing quantized here. Each network is tried in a process of its own, for five minutes of
processor time at most. Writes results/timm_towers.md and .json beside this file after each; with --names, what was
found of others by the same timm stays in them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from layout import RESULTS
from machine import describe_machine
from publish import publish

from clipedge.errors import UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.distillation.exportable import check_student
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.training.batch_norms import has_statistics

SIZE, SECONDS = 64, 300
NAMES = (
    *("resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "efficientnet_b0", "convnext_atto", "fastvit_mci0"),
    *(
        "swin_tiny_patch4_window7_224",
        "levit_128s",
        "regnety_002",
        "mobilenetv4_conv_small",
        "repvit_m0_9",
        "fastvit_t8",
    ),
    *("eva02_tiny_patch14_224", "mobilevitv2_050", "xcit_nano_12_p16_224"),
)


@dataclass(frozen=True)
class Tried:
    """``said`` is why a network is refused, None where it is taken; ``seconds`` are the check's, of
    processor time."""

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
    started = time.process_time()
    try:
        check_student(teacher_for(size), parse_spec(f"timm:{name}"), 2)
    except UsageError as error:
        said = str(error)
    return Tried(name, size, parameters, has_statistics(network), time.process_time() - started, said)


def attempted(name: str, folder: Path) -> Tried:
    """The same in a forked process, which may fail in any way."""
    path = folder / f"{name}.json"
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
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
        f"ONNX Runtime. {machine['cpu']}, seconds of processor time on one thread, {machine['date']}.",
        "",
        "| network | pixels | parameters | BatchNorm | seconds |",
        "|---|---:|---:|---|---:|",
        *(
            f"| `{row['name']}` | {row['size']} | {row['parameters'] / 1e6:.1f} M | "
            f"{'yes' if row['batch_norms'] else ''} | {row['seconds']:.0f} |"
            for row in taken
        ),
        *(["", "Refused:", ""] if len(taken) < len(rows) else []),
        *(f"- `{row['name']}`: {row['said']}" for row in rows if row["said"]),
    ]
    return "\n".join(lines) + "\n"


def earlier() -> dict[str, dict[str, Any]]:
    """The rows of the results that lie there, by network."""
    path = RESULTS / "timm_towers.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"timm": None}
    return {row["name"]: row for row in document["rows"]} if document["timm"] == timm.__version__ else {}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES, help="these networks")
    names = parser.parse_args().names
    rows = {} if names is NAMES else earlier()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows[name] = dataclasses.asdict(attempted(name, Path(folder)))
            document = {"machine": describe_machine(), "timm": timm.__version__, "rows": list(rows.values())}
            publish("timm_towers", document, markdown(document))


if __name__ == "__main__":
    main()
