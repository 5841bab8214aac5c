"""The contract of the folders: what runs on the device never imports the workstation's code nor a heavy library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME_FILES = sorted((ROOT / "clipedge").rglob("*.py"))
CALIBRATION_FILES = sorted((ROOT / "calibration").rglob("*.py"))

HEAVY = (
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "tokenizers",
    "scipy",
    "cv2",
    "openvino",
    "tensorrt",
    "cuda",
    "tqdm",
    "pyarrow",
    "accelerate",
    "tensorboard",
)
WORKSTATION = ("clipedge.export", "clipedge.calibration")

# Where a verb is a workstation job, it imports it when it runs. Every other file of the runtime imports none, ever.
LAZY_WORKSTATION_IMPORTS = {
    "clipedge/cli/distill.py",
    "clipedge/cli/export.py",
    "clipedge/cli/finetune.py",
    "clipedge/cli/inspect.py",
}
# Libraries that are used when needed, each in its own place: (file, library, at the top of that file?).
KNOWN_HEAVY_IMPORTS = {
    ("clipedge/backends/onnxruntime.py", "onnxruntime", True),
    ("clipedge/backends/openvino.py", "openvino", True),
    ("clipedge/camera/sources.py", "cv2", False),
    # These modules are imported when a GPU is asked for.
    ("clipedge/backends/cuda.py", "cuda", True),
    ("clipedge/backends/onnxruntime_tensorrt.py", "onnxruntime", True),
    ("clipedge/backends/tensorrt.py", "tensorrt", True),
    ("clipedge/engines/tensorrt_builder.py", "tensorrt", True),
    ("clipedge/retrieval/parquet.py", "pyarrow", False),
    ("clipedge/text.py", "tokenizers", False),
}


def loaded_by(code: str) -> set[str]:
    """The modules that are loaded after ``code`` ran in a fresh interpreter."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    return set(json.loads(output))


@pytest.mark.parametrize(
    "code",
    [
        "import clipedge",
        "from clipedge import Clip, Frame, PromptBank, load",
        "import clipedge.evaluation.evaluate, clipedge.folders, clipedge.selftest",
        "import clipedge.cli.classify, clipedge.cli.eval, clipedge.cli.inspect, clipedge.cli.export",
        "import clipedge.retrieval.indexing, clipedge.cli.index, clipedge.cli.search",
        "import clipedge.cli.bench, clipedge.bench.latency, clipedge.cli.doctor, clipedge.doctor.probe",
        "import clipedge.camera.sources, clipedge.cli.watch",
        "import clipedge.cli.prompts, clipedge.cli.explain, clipedge.cli.build",
        "import clipedge.cli.distill, clipedge.cli.finetune",
    ],
)
def test_importing_the_runtime_loads_nothing_heavy(code: str) -> None:
    loaded = loaded_by(code)
    assert "clipedge.model" in loaded
    assert not loaded & {*HEAVY, *WORKSTATION}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every import of a file: (module, whether it happens when the file is imported)."""
    package = ".".join(path.relative_to(ROOT).parent.parts)

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module, at_import
            yield from ((f"{module}.{alias.name}", at_import) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        lazy = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_import and not lazy)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), True)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", RUNTIME_FILES, ids=name_of)
def test_a_runtime_file_imports_the_workstation_only_inside_its_verb(path: Path) -> None:
    found = [(module, top) for module, top in imports(path) if within(module, (*WORKSTATION, "torch", "onnx"))]
    assert not [module for module, at_import in found if at_import]
    assert not found or name_of(path) in LAZY_WORKSTATION_IMPORTS


@pytest.mark.parametrize("path", RUNTIME_FILES, ids=name_of)
def test_a_runtime_file_imports_heavy_libraries_only_where_they_are_known(path: Path) -> None:
    found = {(name_of(path), library, top) for module, top in imports(path) for library in [module.partition(".")[0]]}
    assert {item for item in found if item[1] in HEAVY} <= KNOWN_HEAVY_IMPORTS


@pytest.mark.parametrize("path", CALIBRATION_FILES, ids=name_of)
def test_calibration_does_not_import_export(path: Path) -> None:
    assert not [module for module, _ in imports(path) if within(module, ("clipedge.export", "export"))]


def test_the_check_sees_imports(tmp_path: Path) -> None:
    """The checks above would pass for nothing if the reader of imports were blind."""
    assert ("clipedge.export.pipeline.export", False) in set(imports(ROOT / "clipedge/cli/export.py"))
    assert ("onnxruntime", True) in set(imports(ROOT / "clipedge/backends/onnxruntime.py"))
    assert len(RUNTIME_FILES) > 15
    assert len(CALIBRATION_FILES) > 5
