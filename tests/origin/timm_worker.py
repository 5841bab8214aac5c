"""Students of timm's towers in the origin's environment, where timm is. Started by test_timm_students.py:

    python timm_worker.py FOLDER

FOLDER has ``pictures``, ``exam`` with a folder for each class, and ``refusals.json``. What each job finds is printed as
JSON, on the last line. Trainings run in forked children: torch and timm are imported once, and compute nothing before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which an optimizer imports, for seconds
from safetensors.torch import load_file, save_file

from clipedge.calibration import scenes
from clipedge.calibration.data import read_pictures
from clipedge.errors import UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, Checkpoint, load_checkpoint
from clipedge.export.distillation import IMAGES, Recipe
from clipedge.export.distillation.exportable import as_exported, check_student
from clipedge.export.distillation.shards import open_cache
from clipedge.export.distillation.spec import parse_spec
from clipedge.export.distillation.student_tower import weights_of
from clipedge.export.distillation.students import make_student, student_config, with_image_tower
from clipedge.export.distillation.teacher import ask_teacher, teacher_facts
from clipedge.export.distillation.trainer import Work, train
from clipedge.export.distillation.validation import prepare_validation
from clipedge.export.towers import build_image_tower
from clipedge.export.training import loop
from clipedge.export.training.batch_norms import learn_statistics
from clipedge.export.training.data import pictures_sha256
from clipedge.export.training.folder import write_student
from clipedge.export.training.recipe import ema_decay
from clipedge.export.training.state import State

STUDENT = "timm:test_resnet"
RECIPE = Recipe(steps=12, batch_size=8, validate_every=4, save_every=2, views=1, ema=0.9, learning_rate=3e-3)
Values = dict[str, Any]


def train_in(folder: Path, name: str, recipe: Recipe = RECIPE) -> None:
    """A training whose state is FOLDER/NAME.safetensors. Every process writes what it ends with."""
    teacher, pictures = load_checkpoint(DEMO_CHECKPOINT), read_pictures(folder / "pictures")
    facts = teacher_facts(teacher, pictures_sha256(pictures), recipe.augmentation, recipe.views)
    cache = open_cache(folder / "cache", facts)
    lessons = ask_teacher(teacher, pictures, recipe.augmentation, recipe.views, cache, False)
    exam = prepare_validation(teacher, read_pictures(folder / "exam"), None, None, cache)
    work = Work(teacher, pictures, lessons, exam, recipe, IMAGES)
    beginner = make_student(teacher, parse_spec(STUDENT), 0, ())
    trained = train(beginner, work, folder / f"{name}.safetensors", "run")
    save_file(trained.weights, folder / f"{name}.{os.environ.get('RANK', 0)}.trained")


def fork(job: Callable[[], None], **environment: str) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment)
        torch.set_num_threads(1)
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def wait(child: int) -> None:
    assert os.waitpid(child, 0)[1] == 0


def kill(folder: Path) -> Values:
    """One training in one go, and one that is killed at random moments."""
    started = time.monotonic()
    wait(fork(lambda: train_in(folder, "whole")))
    seconds, generator = time.monotonic() - started, random.Random(3)
    for kills in range(5):
        child = fork(lambda: train_in(folder, "killed"))
        time.sleep(generator.uniform(0.2, 0.9) * seconds)
        if os.waitpid(child, os.WNOHANG)[0]:
            return {"kills": kills}
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    wait(fork(lambda: train_in(folder, "killed")))
    return {"kills": 5}


def average(folder: Path) -> Values:
    """How far a state's averages are from those computed again, in float64, of the states' weights and statistics."""
    states: list[dict[str, torch.Tensor]] = []

    def keep(path: Path, state: State, run: str) -> None:
        states.append({name: tensor.detach().clone() for name, tensor in state.tensors.items()})

    loop.save_state = keep
    train_in(folder, "averaged", dataclasses.replace(RECIPE, save_every=1))
    config = student_config(teacher := load_checkpoint(DEMO_CHECKPOINT), parse_spec(STUDENT))
    first = make_student(teacher, parse_spec(STUDENT), 0, ()).image_weights
    assert config == make_student(teacher, parse_spec(STUDENT), 1, ()).image
    distances, moved = {}, 0
    for name, beginning in first.items():
        expected = beginning.double()
        for step, state in enumerate(states, start=1):
            now, decay = state[f"weights.source.{name}"].double(), ema_decay(step, RECIPE)
            expected = decay * expected + (1 - decay) * now if beginning.is_floating_point() else now
        distances[name] = float((states[-1][f"average.source.{name}"].double() - expected).abs().max())
        moved += name.endswith("running_var") and not torch.equal(states[-1][f"weights.source.{name}"], beginning)
    counts = {int(state["weights.source.trunk.bn1.num_batches_tracked"]) for state in states}
    return {"furthest": max(distances.values()), "moved": moved, "counts": sorted(counts)}


def share(folder: Path) -> Values:
    """One step by one process and by two: shares and the whole batch have one mean behind the first layer."""
    recipe = dataclasses.replace(RECIPE, steps=1, ema=0.0)
    wait(fork(lambda: train_in(folder, "one", recipe)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{**places, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    for child in [fork(lambda: train_in(folder, "two", recipe), **environment) for environment in ranks]:
        wait(child)
    one, first, second = (load_file(folder / f"{name}.trained") for name in ("one.0", "two.0", "two.1"))
    means, stem = [name for name in one if name.endswith("running_mean")], "trunk.conv1.1.running_mean"
    apart = {name: float((one[name] - first[name]).abs().max()) for name in means}
    return {
        "equal": all(torch.equal(tensor, second[name]) for name, tensor in first.items()),
        "first": apart[stem],
        "furthest": max(apart.values()),
        "size": float(one[stem].abs().max()),
    }


def refusals(folder: Path) -> Values:
    """What is said of students that are none: by specification, and the pictures at least that are seen together."""
    teacher, said = load_checkpoint(DEMO_CHECKPOINT), {}
    for name, together in json.loads((folder / "refusals.json").read_text()):
        try:
            student_config(teacher, parse_spec(name))
            check_student(teacher, parse_spec(name), together)
        except UsageError as error:
            said[name] = str(error)
    return said


def readers(folder: Path) -> Values:
    """A student that export reads into a tower of its own: how far both are apart, and what the folder is read as."""
    teacher, spec = load_checkpoint(DEMO_CHECKPOINT), parse_spec("timm:fastvit_mci0")
    pixels = torch.from_numpy(scenes.labelled_pictures("test", 6, size=64)[0])
    student = as_if_trained(make_student(teacher, spec, 0, ()), pixels)
    exported = as_exported(student)
    write_student(student, folder / "fastvit", 4.0, "# A student")
    found = load_checkpoint(folder / "fastvit")
    with torch.inference_mode():
        ours, theirs = build_image_tower(exported)(pixels), build_image_tower(student)(pixels)
    return {
        "config": type(found.image).__name__,
        "apart": float((ours - theirs).abs().max()),
        "spread": float((theirs - theirs.mean(dim=0)).abs().max()),
        "same_space": found.space_id == exported.space_id != student.space_id,
    }


def as_if_trained(student: Checkpoint, pixels: torch.Tensor) -> Checkpoint:
    """With other gains and layer scales than a beginner's, which is nearly blind, and these pictures' statistics."""
    generator = torch.Generator().manual_seed(0)
    tower = build_image_tower(student)
    learn_statistics(tower)
    for module in tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        for weight in tower.parameters():
            if weight.ndim != 4 or weight.shape[1:] == (1, 1, 1):
                weight += 0.3 * torch.rand(weight.shape, generator=generator)
        tower(pixels)
    weights = weights_of({name: weight.detach() for name, weight in tower.state_dict().items()})
    return with_image_tower(student, student.image, weights)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps({job.__name__: job(place) for job in (kill, share, average, readers, refusals)}))
