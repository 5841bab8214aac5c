"""Started by test_processes.py: what it compares, by one process and by several, forked here so that torch is imported
once and does nothing before a fork.

    python several_processes.py FOLDER PAIRS EXAM JOB

Of each process, the exit code and what it wrote to stdout and stderr are in FOLDER/NAME.RANK.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # which an optimizer imports, for seconds
from safetensors import safe_open
from safetensors.torch import save_file

from clipedge.cli import main
from clipedge.export.checkpoints import DEMO_CHECKPOINT, load_checkpoint
from clipedge.export.distillation import teacher
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.students import make_student
from clipedge.export.towers import build_image_tower
from clipedge.export.training.contrast import infonce
from clipedge.export.training.gradients import embedding_gradients
from clipedge.export.training.processes import join_processes

STUDENT = "vit:layers=1,width=32,heads=2,patch=16"
COUNTS, PARTS, ROWS = (1, 2, 3), (1, 2), 12
Job = Callable[[], int]


def start(folder: Path, name: str, count: int, job: Job) -> list[int]:
    """Fork so many processes that do the job, as a launcher would; returns their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            os.environ["OMP_NUM_THREADS"] = "1"
            if count > 1:
                address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
                os.environ.update(address | {key: str(value) for key, value in places.items()})
            _work(folder / f"{name}.{rank}", job)
        children.append(child)
    return children


def _work(outputs: Path, job: Job) -> None:
    torch.set_num_threads(1)
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(f"{outputs}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = 70
    try:
        code = job()
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def command(pairs: Path, exam: Path, output: Path, *options: str) -> list[str]:
    data = ["distill", "--student", STUDENT, "--data", str(pairs), "--validation", str(exam), "--output", str(output)]
    numbers = ["--steps", "20", "--batch-size", "12", "--validate-every", "10", "--save-every", "3", "--views", "1"]
    losses = ["--losses", "cosine=8,relational=1,affinity=1,interactive=1"]
    return [*data, *numbers, *losses, "--learning-rate", "0.003", "--json", *options]


def gradients(folder: Path, count: int) -> int:
    """Every process' gradients of a contrastive loss in float64, for each number of parts."""
    accelerator = join_processes()
    student = make_student(load_checkpoint(DEMO_CHECKPOINT), parse_spec(STUDENT), 0, [])
    tower = build_image_tower(student).double().requires_grad_(True)
    shared = accelerator.prepare_model(tower)
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.integers(0, 255, (ROWS, 64, 64, 3), np.uint8))
    texts = torch.nn.functional.normalize(torch.from_numpy(generator.standard_normal((ROWS, 128))), dim=-1)
    log_scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    own = pixels.tensor_split(count)[accelerator.process_index]
    for parts in PARTS:
        tower.zero_grad()
        log_scale.grad = None
        loss = embedding_gradients(
            shared, own, lambda images: infonce(images, texts, log_scale.exp()), parts, accelerator=accelerator
        )
        assert log_scale.grad is not None
        found = {name: weight.grad for name, weight in tower.named_parameters() if weight.grad is not None}
        found |= {"loss": torch.tensor(loss, dtype=torch.float64), "log_scale": log_scale.grad}
        save_file(found, folder / f"gradients.{count}.{parts}.{accelerator.process_index}.safetensors")
    return 0


def logged(folder: Path, name: str, arguments: list[str]) -> int:
    """``clipedge distill`` in small shards; which of them this process has made is written down."""
    if "bf16" in arguments:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # as a launcher that is asked for the same
    teacher.SHARD_PICTURES = 10
    real = teacher._picture_shard

    def counted(*given: object) -> object:
        with (folder / f"{name}.{os.environ.get('RANK', 0)}.shards").open("a", encoding="utf-8") as file:
            file.write(f"{given[3]}\n")
        return real(*given)  # type: ignore[arg-type]

    teacher._picture_shard = counted  # type: ignore[assignment]
    return main(arguments)


def compare(folder: Path, pairs: Path, exam: Path) -> dict[str, list[int]]:
    """Exit codes: gradients; one training by one process and by two; one that stops early; two that go wrong."""
    codes = {}
    for count in COUNTS:
        codes[f"gradients-{count}"] = wait(
            start(folder, f"gradients-{count}", count, partial(gradients, folder, count))
        )
    still = ("--learning-rate", "1e-30", "--patience", "1", "--validate-every", "2")  # nothing gets better
    options = ("--mixed-precision", "bf16", "--augment", "corruption,adversarial", "--tensorboard")
    jobs = {
        "stopped": (2, command(pairs, exam, folder / "stopped", *still, *options)),
        "one": (1, command(pairs, exam, folder / "one")),
        "two": (2, command(pairs, exam, folder / "two", "--accumulate", "3")),
        "nowhere": (2, command(folder / "nowhere", exam, folder / "none")),
        "odd": (2, command(pairs, exam, folder / "none", "--batch-size", "13")),
    }
    for name, (count, arguments) in jobs.items():
        codes[name] = wait(start(folder, name, count, partial(logged, folder, name, arguments)))
    return codes


def kill(folder: Path, pairs: Path, exam: Path) -> dict[str, list[int]]:
    """A training by two processes, whole; and one in which both are killed several times, one of them first."""
    codes = {"whole": wait(start(folder, "whole", 2, partial(main, command(pairs, exam, folder / "whole"))))}
    job, generator = partial(main, command(pairs, exam, folder / "killed")), random.Random(5)
    for attempt, step in enumerate((0, 3, 6, 12)):  # of 20, with a state after every third
        children = start(folder, f"attempt-{attempt}", 2, job)
        while saved_step(folder / "killed") < step:
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.05))
        generator.shuffle(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
        codes[f"attempt-{attempt}"] = wait(children)
    codes["killed"] = wait(start(folder, "killed", 2, job))
    return codes


def saved_step(output: Path) -> int:
    """The step of the state that a training has saved, 0 without one."""
    path = output / "training" / "state.safetensors"
    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        step: int = json.loads(file.metadata()["clipedge_training"])["progress"]["step"]
    return step


if __name__ == "__main__":
    place, its_pairs, its_exam, wanted = sys.argv[1:]
    done = {"compare": compare, "kill": kill}[wanted](Path(place), Path(its_pairs), Path(its_exam))
    print(json.dumps(done))
