"""Every name that the sources use of TensorRT and CUDA is published by NVIDIA, in the oldest version and the newest.

The sources are read, not run: a call that no test makes is checked like any other.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TABLES = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "published").glob("*.json")}
TENSORRTS = sorted(name for name in TABLES if name.startswith("tensorrt"))
CUDAS = sorted(name for name in TABLES if name.startswith("cuda"))
SOURCES = Path(__file__).parents[3] / "clipedge"
TENSORRT_FILES = [SOURCES / "backends/tensorrt.py", SOURCES / "engines/tensorrt_builder.py"]
CUDA_FILE = SOURCES / "backends/cuda.py"


def test_both_ends_of_the_range_are_there() -> None:
    versions = [tuple(map(int, TABLES[name]["version"].split(".")[:2])) for name in TENSORRTS]
    assert min(versions) == (10, 3)
    assert max(versions) >= (11, 4)


class Reader(ast.NodeVisitor):
    """Which attributes of which types a file uses, as far as types follow from the table.

    ``self.uses`` has (Class, attribute); a type follows from a constructor, a method's result, an annotation or a base.
    """

    def __init__(self, table: dict[str, Any], module: str) -> None:
        self.classes, self.functions, self.module = table["classes"], table["functions"], module
        self.types: dict[str, str] = {}
        self.uses: set[tuple[str, str]] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = dict(self.types)
        for argument in node.args.args:
            if argument.annotation is not None:
                self.types[argument.arg] = self.type_of(argument.annotation)
        self.generic_visit(node)
        self.types = {**outer, **{name: kind for name, kind in self.types.items() if name.startswith("self.")}}

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self.types[ast.unparse(target)] = self.type_of(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Methods of a subclass that its base calls have to be methods of the base."""
        base = next((self.type_of(base) for base in node.bases), "")
        if base in self.classes:
            own = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            self.uses |= {(base, name) for name in own & set(self.classes[base]["methods"])}
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = ast.unparse(node.value)
        if owner == self.module:
            self.uses.add(("", node.attr))
        elif self.type_of(node.value):
            self.uses.add((self.type_of(node.value), node.attr))

    def type_of(self, node: ast.AST) -> str:
        """A class of the table, or "" """
        text = ast.unparse(node)
        if text in self.types:
            return self.types[text]
        path = text.removeprefix(f"{self.module}.")
        if path in self.classes and path != text:
            return path
        if isinstance(node, ast.Call):
            return self.called(node.func)
        if isinstance(node, ast.Attribute):
            properties = self.classes.get(self.type_of(node.value), {}).get("properties", {})
            kind = properties.get(node.attr, "") if isinstance(properties, dict) else ""
            return kind if kind in self.classes else ""
        return ""

    def called(self, function: ast.AST) -> str:
        if isinstance(function, ast.Attribute) and (owner := self.type_of(function.value)):
            signatures = self.classes[owner].get("methods", {}).get(function.attr, [])
            results = {signature.rpartition("-> ")[2] for signature in signatures}
            return next((result for result in results if result in self.classes), "")
        return self.type_of(function)


def unknown(reader: Reader) -> Iterator[str]:
    for kind, name in sorted(reader.uses):
        table = reader.classes.get(kind, {})
        if kind == "":
            known = name in reader.classes or name in reader.functions or name == "__version__"
        else:
            nested = f"{kind}.{name}" in reader.classes
            known = nested or any(name in table.get(part, ()) for part in ("methods", "properties", "members"))
        if not known:
            yield f"{kind}.{name}"


def read(table: dict[str, Any], module: str, *files: Path) -> Reader:
    reader = Reader(table, module)
    for file in files:
        reader.types = {}
        reader.visit(ast.parse(file.read_text(encoding="utf-8")))
    return reader


@pytest.mark.parametrize("version", TENSORRTS)
def test_every_name_of_tensorrt_is_published(version: str) -> None:
    reader = read(TABLES[version], "trt", *TENSORRT_FILES)
    assert list(unknown(reader)) == []
    expected = {
        ("", "Runtime"),
        ("Runtime", "deserialize_cuda_engine"),
        ("ICudaEngine", "create_execution_context"),
        ("ICudaEngine", "get_tensor_dtype"),
        ("IExecutionContext", "execute_async_v3"),
        ("IExecutionContext", "set_input_shape"),
        ("Builder", "build_serialized_network"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ITimingCache", "serialize"),
        ("IOptimizationProfile", "set_shape"),
        ("ParserError", "desc"),
        ("ILogger.Severity", "INTERNAL_ERROR"),
        ("ILogger", "log"),
        ("IProgressMonitor", "step_complete"),
    }
    assert expected <= reader.uses, "the reader of sources is blind"


@pytest.mark.parametrize("version", CUDAS)
def test_every_name_of_cuda_is_published(version: str) -> None:
    reader = read(TABLES[version], "cudart", CUDA_FILE)
    assert list(unknown(reader)) == []
    assert {("", "cudaMallocHost"), ("cudaMemcpyKind", "cudaMemcpyHostToDevice")} <= reader.uses
    assert {"name", "major", "minor", "totalGlobalMem"} <= set(
        TABLES[version]["classes"]["cudaDeviceProp"]["properties"]
    )


@pytest.mark.parametrize("version", TENSORRTS)
@pytest.mark.parametrize(
    "line",
    [
        "trt.Bilder(log)",
        "trt.Builder(log).build_engine(network)",
        "trt.MemoryPoolType.WORKSPACES",
        "trt.Builder(log).create_builder_config().max_workspace_size",
        "def f(engine: trt.ICudaEngine): engine.get_binding_name(0)",
    ],
)
def test_a_name_that_is_not_published_is_noticed(version: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "source.py").write_text(line)
    assert len(list(unknown(read(TABLES[version], "trt", tmp_path / "source.py")))) == 1


def test_the_sources_import_nvidia_nowhere_else() -> None:
    for file in SOURCES.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if file not in TENSORRT_FILES:
            assert "import tensorrt as trt" not in text, file
        if file != CUDA_FILE:
            assert "from cuda" not in text, file
