"""Where a model lies that a user named by a path; names on a hub are in test_hub, adapters in test_adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipedge.errors import CheckpointError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, ModelSource
from clipedge.export.checkpoints.locating import locate


def test_a_folder_is_called_by_its_name_however_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DEMO_CHECKPOINT)
    found = locate(ModelSource(".", tokenizer="elsewhere"))
    assert (found.name, found.path, found.revision) == ("demo", DEMO_CHECKPOINT.resolve(), None)
    assert found.source == ModelSource(str(DEMO_CHECKPOINT.resolve()), tokenizer="elsewhere")


def test_a_linked_file_keeps_its_name_and_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the cache of a hub, whose files are called by their hashes."""
    (tmp_path / "0123abcd").write_bytes(b"weights")
    (tmp_path / "ViT-B-32.pt").symlink_to(tmp_path / "0123abcd")
    monkeypatch.chdir(tmp_path)
    found = locate(ModelSource("ViT-B-32.pt"))
    assert (found.name, found.path) == ("ViT-B-32", tmp_path / "ViT-B-32.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.txt", "notes.txt is no folder and no file of weights; expected .* ends in .pt, .pth, .bin, .safeten"),
        ("nowhere", "there is no folder nowhere; expected the path of a model, or its name on a hub: owner/name"),
        ("a/b/c", "there is no folder a/b/c; expected the path"),
    ],
)
def test_what_is_neither_a_model_nor_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "notes.txt").write_text("a model")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        locate(ModelSource(name))
