"""A writer that is killed at any moment loses its last batch at most, and what it leaves is opened and written on."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipedge.retrieval.index import Index

SPACE, DIM = "a" * 64, 12

# Adds, replaces, removes, compacts, makes lists and opens again (so that tables are written) without end, and prints a
# line after each addition and each removal: that it has promised to keep. A key's vector is a function of the key and
# of the step that wrote it.
WRITER = """
import sys
import numpy as np
from clipedge.retrieval import entrysnapshot
from clipedge.retrieval import index as module
entrysnapshot.LOG_BYTES = 300
module.SEGMENT_ROWS, module.BATCH_ROWS = 16, 4
folder, space, dim, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def vector(number, version):
    values = np.random.default_rng([number, version]).normal(size=dim)
    return values / np.linalg.norm(values)

from pathlib import Path
made = (Path(folder) / "index.json").exists()
index = module.Index.open(folder, space, writable=True) if made else module.Index.create(folder, space, dim)
print("ready", flush=True)
while True:
    numbers = [(3 * step + offset) % 40 for offset in range(4)]
    vectors = np.array([vector(number, step) for number in numbers], np.float32)
    index.add([f"k{number}" for number in numbers], vectors, [{"step": step}] * 4)
    print("added", flush=True)
    if step % 3 == 0:
        index.remove([f"k{numbers[0]}"])
        print("removed", flush=True)
    if step % 5 == 0:
        index.compact()
    if step % 3 == 1:
        index.build_lists()
    if step % 4 == 0:
        index.close()
        index = module.Index.open(folder, space, writable=True)
    step += 1
"""


def vector(number: int, version: int) -> NDArray[np.float32]:
    values = np.random.default_rng([number, version]).normal(size=DIM)
    return np.asarray(values / np.linalg.norm(values), np.float32)


def states(first: int, last: int, state: dict[str, int]) -> list[dict[str, int]]:
    """The states after none, one, ... of the writer's lines, from ``state`` on: key -> the step that wrote it."""
    seen = [state]
    for step in range(first, last):
        numbers = [(3 * step + offset) % 40 for offset in range(4)]
        state = {**state, **{f"k{number}": step for number in numbers}}
        seen.append(state)
        if step % 3 == 0:
            state = {key: value for key, value in state.items() if key != f"k{numbers[0]}"}
            seen.append(state)
    return seen


def found_in(folder: Path) -> dict[str, int]:
    """What an index holds, after every vector in it was checked."""
    index = Index.open(folder, SPACE)
    state = {key: int(index.metadata(key)["step"]) for key in index}
    for key, step in state.items():
        (best,) = index.search(vector(int(key[1:]), step)[None], 1)[0]
        assert best.key == key
        assert best.score == pytest.approx(1, abs=2e-3)
    return state


def test_a_writer_killed_at_random_loses_the_last_batch_at_most(tmp_path: Path) -> None:
    folder, generator = tmp_path / "killed.index", random.Random(5)
    before: dict[str, int] = {}
    step = 1
    for _ in range(20):
        command = [sys.executable, "-c", WRITER, str(folder), SPACE, str(DIM), str(step)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(generator.uniform(0, 0.12))
        process.send_signal(signal.SIGKILL)
        promised = process.stdout.read().count("\n")
        process.wait()
        process.stdout.close()
        state = found_in(folder)
        # What it had promised, or that and the batch at work.
        assert state in states(step, step + promised + 2, before)[promised : promised + 2]
        before, step = state, step + promised + 2
    assert len(before) > 10


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torn") / "index"
    with Index.create(folder, SPACE, DIM) as index:
        for step in range(3):
            keys = [f"k{2 * step}", f"k{2 * step + 1}"]
            index.add(keys, np.stack([vector(int(key[1:]), step) for key in keys]), [{"step": step}] * 2)
    return folder


def record_starts(log: bytes) -> list[int]:
    starts = [0]
    while starts[-1] < len(log):
        starts.append(starts[-1] + 12 + int.from_bytes(log[starts[-1] : starts[-1] + 4], "little"))
    return starts


def test_a_record_torn_at_any_byte_is_cut_off_and_written_over(written: Path, tmp_path: Path) -> None:
    log = (written / "entries-1.log").read_bytes()
    starts = record_starts(log)
    assert len(starts) == 4
    folder = shutil.copytree(written, tmp_path / "copy")
    for end in range(starts[2], starts[3]):
        (folder / "entries-1.log").write_bytes(log[:end])
        assert found_in(folder) == {"k0": 0, "k1": 0, "k2": 1, "k3": 1}
        assert (folder / "entries-1.log").stat().st_size == end  # a reader changes nothing
        if end % 16 == 0:
            with Index.open(folder, SPACE, writable=True) as index:
                index.add(["k9"], vector(9, 7)[None], [{"step": 7}])
            assert found_in(folder) == {"k0": 0, "k1": 0, "k2": 1, "k3": 1, "k9": 7}


@pytest.mark.parametrize("zeros", [1, 12, 13, 5000])
def test_zeros_that_a_power_cut_left_are_cut_off(written: Path, tmp_path: Path, zeros: int) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    with (folder / "entries-1.log").open("ab") as file:
        file.write(bytes(zeros))
    assert len(found_in(folder)) == 6
    with Index.open(folder, SPACE, writable=True) as index:
        index.remove(["k0"])
    assert len(found_in(folder)) == 5


@pytest.mark.parametrize(
    "left", [["lock"], ["lock", "entries-1.log"], ["lock", "entries-1.log", ".index.json.staging"]]
)
def test_what_a_killed_creation_left_is_no_hindrance(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_bytes(b"half" if name != "lock" else b"")
    with Index.create(tmp_path, SPACE, DIM) as index:
        index.add(["k1"], vector(1, 2)[None], [{"step": 2}])
    assert found_in(tmp_path) == {"k1": 2}


def test_what_a_killed_compaction_left_is_removed_by_the_next_writer(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    (folder / "entries-2.log").write_bytes(b"half")
    (folder / "vectors-2-0.f16").write_bytes(b"half")
    assert len(found_in(folder)) == 6
    assert (folder / "entries-2.log").exists()  # it may be at work
    with Index.open(folder, SPACE, writable=True) as index:
        assert not list(folder.glob("*-2*"))
        index.compact()
    assert len(found_in(folder)) == 6
