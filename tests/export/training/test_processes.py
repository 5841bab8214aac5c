"""Two processes train as one does with the same batch: gradients, losses, weights, files, errors, kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export.distillation import teacher
from clipedge.export.training.processes import join_processes

SCRIPT = Path(__file__).parent / "several_processes.py"
Codes = dict[str, list[int]]


def start(job: str, folder: Path, pairs: Path, exam: Path) -> Codes:
    command = [sys.executable, str(SCRIPT), str(folder), str(pairs), str(exam), job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    codes: Codes = json.loads(done.stdout.splitlines()[-1])
    return codes


@pytest.fixture(scope="module")
def compared(pairs: Path, exam: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Codes]:
    folder = tmp_path_factory.mktemp("compared")
    return folder, start("compare", folder, pairs, exam)


def losses(folder: Path) -> list[float]:
    with safe_open(folder / "training" / "state.safetensors", framework="pt") as file:
        found: list[float] = json.loads(file.metadata()["clipedge_training"])["progress"]["losses"]
    return found


def run_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "distill.json").read_bytes())
    return found


def distance(first: Path, second: Path) -> float:
    """The largest difference of two students' weights."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert ours.keys() == theirs.keys()
    return max(float((weight - theirs[name]).abs().max()) for name, weight in ours.items())


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_gradients_of_several_processes_are_those_of_one(
    count: int, parts: int, compared: tuple[Path, Codes]
) -> None:
    """In float64, so that a factor or a missing term cannot hide: the whole of it in every process."""
    folder, codes = compared
    assert codes["gradients-1"] == [0] and codes[f"gradients-{count}"] == [0] * count
    alone = load_file(folder / "gradients.1.1.0.safetensors")
    assert float(alone["log_scale"].abs()) > 1e-3 and len(alone) > 10
    for index in range(count):
        found = load_file(folder / f"gradients.{count}.{parts}.{index}.safetensors")
        assert found.keys() == alone.keys()
        for name, gradient in alone.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-12, rtol=1e-9, msg=name)


def test_two_processes_train_as_one(compared: tuple[Path, Codes]) -> None:
    folder, codes = compared
    assert codes["one"] == [0] and codes["two"] == [0, 0], (folder / "two.1.err").read_text()
    one, two = losses(folder / "one"), losses(folder / "two")
    assert len(one) == len(two) == 20 and one[-1] < one[0] - 1
    np.testing.assert_allclose(two, one, atol=1e-4, rtol=0)
    assert distance(folder / "one", folder / "two") < 1e-3
    ours, theirs = run_of(folder / "one"), run_of(folder / "two")
    assert theirs["settings"]["recipe"]["accumulate"] == 3
    assert theirs["result"]["best"]["score"]["cosine"] == pytest.approx(
        ours["result"]["best"]["score"]["cosine"], abs=1e-4
    )


def test_only_the_first_process_prints_and_writes(compared: tuple[Path, Codes]) -> None:
    folder, _ = compared
    assert json.loads((folder / "two.0.out").read_text()) == run_of(folder / "two")["result"]
    assert not (folder / "two.1.out").read_text()
    names = [{path.relative_to(folder / name) for path in (folder / name).rglob("*")} for name in ("one", "two")]
    assert names[0] == names[1]


def test_the_teacher_is_asked_once_by_both(compared: tuple[Path, Codes]) -> None:
    folder, _ = compared
    first, second = ((folder / f"two.{rank}.shards").read_text().split() for rank in (0, 1))
    assert first == ["0", "20", "40", "60"] and second == ["10", "30", "50"]
    cache = Path("training") / "teacher"
    for path in (folder / "one" / cache).glob("*.safetensors"):
        ours, theirs = load_file(path), load_file(folder / "two" / cache / path.name)
        assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()), path.name


def test_early_stopping_stops_both(compared: tuple[Path, Codes]) -> None:
    """With everything that a process might do of its own."""
    folder, codes = compared
    assert codes["stopped"] == [0, 0], (folder / "stopped.1.err").read_text()
    assert len(losses(folder / "stopped")) == 4 and run_of(folder / "stopped")["result"]["best"]["step"] == 2
    assert len(list((folder / "stopped" / "training" / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "there is no folder"), ("odd", "batch_size to be a multiple of the 2 processes, found 13")],
)
def test_what_is_wrong_ends_all_processes_in_one_line(name: str, message: str, compared: tuple[Path, Codes]) -> None:
    folder, codes = compared
    assert codes[name] == [2, 2]
    for rank in (0, 1):
        said = [line for line in (folder / f"{name}.{rank}.err").read_text().splitlines() if "clipedge: " in line]
        assert len(said) == 1 and message in said[0]
        assert "Traceback" not in (folder / f"{name}.{rank}.err").read_text()
    assert not (folder / "none").exists()


def test_one_process_goes_on_with_the_state_of_two(
    compared: tuple[Path, Codes],
    pairs: Path,
    exam: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has ended: nothing is left to do, and the same is found."""
    folder, _ = compared
    monkeypatch.setattr(teacher, "SHARD_PICTURES", 10)  # as theirs
    options = ["--steps", "20", "--batch-size", "12", "--validate-every", "10", "--save-every", "3", "--views", "1"]
    student = run_of(folder / "two")["settings"]["student"]
    command = ["distill", "--student", student, "--data", str(pairs), "--validation", str(exam), *options]
    before = run_of(folder / "two")
    same = ["--output", str(folder / "two"), "--accumulate", "3", "--learning-rate", "0.003", "--json"]
    losses = ["--losses", "cosine=8,relational=1,affinity=1,interactive=1"]
    assert main([*command, *losses, *same]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 20 and run_of(folder / "two") == before


@pytest.mark.slow
def test_two_killed_processes_go_on(pairs: Path, exam: Path, tmp_path: Path) -> None:
    codes = start("kill", tmp_path, pairs, exam)
    assert codes["whole"] == codes["killed"] == [0, 0]
    killed = [code for name, found in codes.items() if name.startswith("attempt") for code in found]
    assert killed.count(-9) >= 3
    whole, resumed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert len(whole) == len(resumed) == 20
    np.testing.assert_allclose(resumed, whole, atol=1e-4, rtol=0)
    assert distance(tmp_path / "whole", tmp_path / "killed") < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["accelerate.commands.launch", "--cpu", "--num_processes", "2"],
        ["torch.distributed.run", "--nproc-per-node", "2"],
    ],
    ids=["accelerate", "torchrun"],
)
def test_launchers_start_it(launcher: list[str], pairs: Path, exam: Path, tmp_path: Path) -> None:
    """The commands of docs/distillation.md."""
    data = ["--student", "vit:layers=1,width=32,heads=2,patch=16", "--data", str(pairs), "--validation", str(exam)]
    options = ["--output", str(tmp_path / "student"), "--steps", "2", "--batch-size", "8", "--views", "1", "--json"]
    command = [sys.executable, "-m", *launcher, "-m", "clipedge", "distill", *data, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2


def test_what_a_launcher_asks_for_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(UsageError, match=r"launcher asks for mixed precision bf16, the training for no"):
        join_processes("no")
    assert join_processes("bf16").num_processes == join_processes().num_processes == 1
