"""Replacing a bundle leaves the old or the new one whole, at whatever moment it is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipedge import bundle as bundle_module
from clipedge.bundle import MANIFEST_NAME, replacing_folder
from clipedge.errors import UsageError

FILES = (MANIFEST_NAME, "image.onnx", "prompts/default.safetensors")

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="kills forked processes at audit events")


def fill(folder: Path, generation: str) -> None:
    """Something with the shape of a bundle, each file of which says which generation it belongs to."""
    for name in FILES:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(generation)


def generation(folder: Path) -> str | None:
    """Which generation lies there whole; None for nothing, "half" for anything else."""
    if not folder.exists():
        return None
    files = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    (found,) = set(files.values()) if len(set(files.values())) == 1 else ("half",)
    return found if set(files) == set(FILES) else "half"


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def replace(target: Path, new: str) -> None:
    with replacing_folder(target) as folder:
        fill(folder, new)


@pytest.fixture(params=["exchange", "fallback"])
def both_swaps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With renameat2's exchange where the system has it, and as on a system without."""
    if request.param == "fallback":
        monkeypatch.setattr(bundle_module, "_exchange", lambda first, second: False)


@pytest.mark.usefixtures("both_swaps")
@pytest.mark.parametrize("name", ["bundle", "clip-b32.int8", "with space [1]*", "ünï"])
def test_a_bundle_is_made_and_then_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / "deep" / name
    for new in ("first", "second"):
        replace(target, new)
        assert generation(target) == new
        assert names_in(target.parent) == [name], "nothing else is left there"


@pytest.mark.parametrize("before", [None, "old"])
def test_an_exception_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    target = tmp_path / "bundle"
    if before:
        replace(target, before)
    with pytest.raises(ZeroDivisionError), replacing_folder(target) as folder:
        fill(folder, "new")
        raise ZeroDivisionError
    assert generation(target) == before
    assert names_in(tmp_path) == ([target.name] if before else [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    replace(target, "old")
    with pytest.raises(OSError, match="No space left"), replacing_folder(target) as folder:
        (folder / "image.onnx").symlink_to("/dev/full")
        (folder / "image.onnx").write_bytes(b"weights")
    assert generation(target) == "old"
    assert names_in(tmp_path) == [target.name]


def test_files_that_are_no_bundle_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError, match="holds files that are no bundle, and would be lost"):
        replace(tmp_path, "new")
    with pytest.raises(UsageError, match=r"holiday\.jpg is not a folder"):
        replace(tmp_path / "holiday.jpg", "new")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="link is not a folder"):
        replace(tmp_path / "link", "new")
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"
    assert sorted(names_in(tmp_path)) == ["holiday.jpg", "link"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    replace(tmp_path / "bundle", "new")
    assert generation(tmp_path / "bundle") == "new"


@pytest.mark.parametrize("parent", ["a-file", "a-file/below", "locked"])
def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, parent: str) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "locked").mkdir(mode=0o555)
    if parent == "locked" and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(UsageError, match=r"cannot be written .*; name a folder"):
        replace(tmp_path / parent / "bundle", "new")


def test_leftovers_are_cleared_unless_their_process_still_runs(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stays = [f".bundle.{os.getppid()}.staging", ".bundle.notes", ".bundle.x.staging", ".bundle-2.1.staging"]
    goes = [f".bundle.{dead.pid}.staging", f".bundle.{os.getpid()}.staging", ".bundle.99999999999999999999.staging"]
    for name in (*stays, *goes):
        (tmp_path / name).mkdir()
    replace(tmp_path / "bundle", "new")
    assert sorted(names_in(tmp_path)) == sorted(["bundle", *stays])


# The child dies at its n-th audit event (every open, mkdir, rename, remove, dlsym is one), for n = 0, 1, 2, ...
KILLED_EVERYWHERE = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from clipedge import bundle
from test_replacing import fill, generation, names_in, replace

if sys.argv[3] == "fallback":
    bundle._exchange = lambda first, second: False
parent = Path(sys.argv[2])
target = parent / "bundle"
outcomes = []

def die_at(event_number):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        seen += 1  # first, because os.kill is an event too
        if seen == event_number + 1:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

while not outcomes or outcomes[-1]["killed"]:
    if sys.argv[4] == "old":
        replace(target, "old")
    child = os.fork()
    if child == 0:
        die_at(len(outcomes))
        replace(target, "new")
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    found = generation(target)
    try:
        with bundle.replacing_folder(target):
            raise InterruptedError
    except InterruptedError:
        pass
    outcomes.append({"killed": killed, "found": found, "mended": generation(target), "there": names_in(parent)})
    if target.exists():
        with bundle.replacing_folder(target) as folder:
            fill(folder, "old")
        bundle.shutil.rmtree(target)
print(json.dumps(outcomes))
"""


@LINUX
@pytest.mark.parametrize("before", ["old", "nothing"])
@pytest.mark.parametrize("swap", ["exchange", "fallback"])
def test_a_process_killed_at_any_moment_leaves_the_old_or_the_new_bundle(
    tmp_path: Path, swap: str, before: str
) -> None:
    command = [sys.executable, "-c", KILLED_EVERYWHERE, str(Path(__file__).parent), str(tmp_path), swap, before]
    outcomes = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(outcomes) > 15, "it was killed at every step of the way"
    assert outcomes[-1] == {"killed": False, "found": "new", "mended": "new", "there": ["bundle"]}
    old = "old" if before == "old" else None
    found = [outcome["found"] for outcome in outcomes]
    switch = found.index("new")
    assert set(found[switch:]) == {"new"}, "once it is there it stays"
    allowed = {old, None} if swap == "fallback" else {old}
    assert set(found[:switch]) <= allowed, "never half a bundle, and with an exchange never none"
    for outcome in outcomes:
        assert outcome["mended"] in ({old} if outcome["found"] is None else {outcome["found"]})
        assert outcome["there"] == (["bundle"] if outcome["mended"] else []), "the next run clears what was left"
