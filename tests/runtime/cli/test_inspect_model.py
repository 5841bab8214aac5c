"""`clipedge inspect` of what `export` takes: a model's folder, a file of weights, an adapter, a name on a hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clipedge.cli import main
from clipedge.export.checkpoints import DEMO_CHECKPOINT


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_models_folder_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, DEMO_CHECKPOINT)
    assert (code, err) == (0, "")
    assert out.startswith("demo\n")
    assert "licence           apache-2.0" in out


def test_as_json_it_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = outcome(capsys, DEMO_CHECKPOINT, "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert document["image"]["parameters"] == 843008
    assert document["license"]["restricts"] is False


def test_a_licence_that_restricts_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "model")
    (model / "README.md").write_text("---\nlicense: other\nlicense_name: apple-amlr\nlicense_link: LICENSE\n---\n")
    assert "licence           apple-amlr (LICENSE): non-commercial research only" in outcome(capsys, model)[1]


def test_a_damaged_model_is_refused_as_by_export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "model")
    (model / "model.safetensors").unlink()
    code, out, err = outcome(capsys, model)
    assert (code, out) == (2, "")
    assert "has no model.safetensors" in err


def test_a_file_of_weights_is_no_calibration_cache(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torch.save(load_file(DEMO_CHECKPOINT / "model.safetensors"), tmp_path / "weights.pt")
    for path in (tmp_path / "weights.pt", DEMO_CHECKPOINT / "model.safetensors"):
        code, out, err = outcome(capsys, path)
        assert (code, out) == (2, "")
        assert "OpenCLIP" in err, "it is read as weights, of which OpenAI's and OpenCLIP's are known without a folder"


def test_a_revision_of_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(capsys, DEMO_CHECKPOINT, "--revision", "main")
    assert code == 2
    assert "a revision is of a model on a hub" in err


def test_without_the_workstation_packages_the_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; from clipedge.cli import main; "
        f"sys.exit(main(['inspect', {str(DEMO_CHECKPOINT)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "clipedge[export]"' in done.stderr
    assert done.stderr.count("\n") == 1
