"""The wheel, and what a device gets: built and installed for real, in fresh virtual environments."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import clipedge
from clipedge.calibration import scenes

ROOT = Path(__file__).parent.parent
FOLDERS = {"clipedge": "clipedge", "clipedge/export": "export", "clipedge/calibration": "calibration"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a clean copy of the tree: what git tracks, so that a forgotten `git add` shows too."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = run(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run([sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(source)])
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def device_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with `clipedge[cpu]`, as on a device."""
    return fresh_environment(tmp_path_factory.mktemp("device"), f"{wheel}[cpu]")


@pytest.fixture(scope="module")
def oldest_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the ONNX Runtime that JetPack 6 can have at most."""
    return fresh_environment(tmp_path_factory.mktemp("oldest"), f"{wheel}[text]", "onnxruntime==1.23.*")


def fresh_environment(folder: Path, *requirements: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run([str(python), "-m", "pip", "install", "--quiet", *requirements])
    return python


def run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    output: str = done.stdout
    return output


def test_wheel_holds_exactly_the_packages_of_the_tree(wheel: Path) -> None:
    expected = set()
    for package, folder in FOLDERS.items():
        for name in run(["git", "ls-files", folder], cwd=ROOT).splitlines():
            expected.add(f"{package}/{Path(name).relative_to(folder)}")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "clipedge/export/demo/model.safetensors" in found


def test_a_device_installs_four_packages_and_theirs(device_python: Path) -> None:
    listed = json.loads(run([str(device_python), "-m", "pip", "list", "--format", "json"]))
    installed = {item["name"].lower() for item in listed} - {"pip", "setuptools", "wheel"}
    asked_for = {"clipedge", "numpy", "pillow", "safetensors", "onnxruntime"}
    of_onnxruntime = {"flatbuffers", "packaging", "protobuf", "coloredlogs", "humanfriendly", "sympy", "mpmath"}
    assert asked_for <= installed <= asked_for | of_onnxruntime


def test_a_device_classifies_with_a_prompt_bank(device_python: Path, demo_bundle: Path, tmp_path: Path) -> None:
    paths = scenes.write_folder(tmp_path, "test", 3)
    command = [str(device_python), "-m", "clipedge", "classify", str(demo_bundle), *map(str, paths), "--json"]
    answers = json.loads(run(command, cwd=tmp_path))
    expected = clipedge.load(demo_bundle).classifier(clipedge.load(demo_bundle).saved_bank("default"))
    assert [item["answers"][0]["label"] for item in answers] == expected.predict(paths).tolist()


def test_a_device_without_tokenizers_names_the_extra(device_python: Path, demo_bundle: Path, tmp_path: Path) -> None:
    paths = scenes.write_folder(tmp_path, "test", 1)
    command = [str(device_python), "-m", "clipedge", "classify", str(demo_bundle), str(paths[0]), "--labels", "a,b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and "clipedge[text]" in done.stderr and "Traceback" not in done.stderr
    command[3:] = ["export", "--output", str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and "clipedge[export]" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["int8", "fp32"])
def test_bundles_load_and_agree_in_onnx_runtime_1_23(
    kind: str, oldest_python: Path, demo_bundle: Path, demo_bundle_fp32: Path, tmp_path: Path
) -> None:
    bundle = demo_bundle if kind == "int8" else demo_bundle_fp32
    pictures, _ = scenes.labelled_pictures("test", 8)
    np.save(tmp_path / "pictures.npy", pictures)
    code = (
        "import sys, clipedge, numpy; clip = clipedge.load(sys.argv[1]);"
        "print(clip.image_engine.version);"
        "numpy.save('image.npy', clip.encode_image(numpy.load('pictures.npy')));"
        "numpy.save('text.npy', clip.encode_text(['a red circle', 'two blue stars']))"
    )
    version = run([str(oldest_python), "-c", code, str(bundle)], cwd=tmp_path).strip()
    assert version.startswith("1.23.")
    clip = clipedge.load(bundle)
    tolerance = 1e-5 if kind == "fp32" else 2e-2  # another version may round a step the other way
    np.testing.assert_allclose(np.load(tmp_path / "image.npy"), clip.encode_image(pictures), atol=tolerance)
    texts = clip.encode_text(["a red circle", "two blue stars"])
    np.testing.assert_allclose(np.load(tmp_path / "text.npy"), texts, atol=tolerance)


def test_import_is_quick_and_light(device_python: Path, tmp_path: Path) -> None:
    """The import's own time is for a benchmark; here, that nothing heavy comes with it."""
    heavy = "torch transformers onnx onnxruntime tokenizers scipy cv2 openvino tensorrt"
    code = f"import sys, clipedge; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert run([str(device_python), "-c", code], cwd=tmp_path).strip() == "[]"
