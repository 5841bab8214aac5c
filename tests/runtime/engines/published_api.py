"""Writes the tables in ``published/``: names and signatures of NVIDIA's Python bindings, read from their wheels.

    pip download --no-deps --python-version 3.10 --only-binary=:all: -d WHEELS tensorrt_cu12_bindings==10.3.0
    python tests/runtime/engines/published_api.py WHEELS/*.whl

The Python that runs it has to be the wheels' (3.10). TensorRT's bindings want libraries that only NVIDIA's own index
has, so they are given empty ones with the same names: that is enough to import them and read what they declare, and
nothing of them is called. Of each function the table keeps the names of its parameters (``?``: may be left out) and the
type that it returns.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

TABLES = Path(__file__).with_name("published")
# What the sources use of TensorRT, and what that returns; and of CUDA's runtime.
TENSORRT_CLASSES = (
    "Builder", "BuilderFlag", "DataType", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IHostMemory",
    "ILogger", "ILogger.Severity", "INetworkDefinition", "IOptimizationProfile", "IProgressMonitor", "ITimingCache",
    "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "Runtime",
)  # fmt: skip
CUDA_FUNCTIONS = (
    "cudaFree", "cudaFreeHost", "cudaGetDevice", "cudaGetDeviceProperties", "cudaMalloc", "cudaMallocHost",
    "cudaMemcpyAsync", "cudaStreamCreate", "cudaStreamDestroy", "cudaStreamSynchronize",
)  # fmt: skip
CUDA_CLASSES = ("cudaError_t", "cudaMemcpyKind", "cudaDeviceProp")


def main(wheels: list[str]) -> None:
    for wheel in map(Path, wheels):
        package, version = wheel.name.split("-")[:2]
        if package.startswith("cuda"):
            name = "cuda.bindings.runtime"
            table = read_module(wheel, name, "cuda_table")
        else:
            table = read_module(wheel, "tensorrt.tensorrt", "tensorrt_table")
        target = TABLES / f"{package}-{version}.json"
        target.write_text(json.dumps({"package": package, "version": version, **table}, indent=1) + "\n")
        print(target)


def read_module(wheel: Path, module: str, reader: str) -> Any:
    """The table of a module, read in a process of its own: two versions do not fit into one."""
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(wheel).extractall(folder)
        environment = {**os.environ, "LD_LIBRARY_PATH": folder}
        for binary in Path(folder).rglob("tensorrt.so"):
            write_empty_libraries(binary, Path(folder))
        script = (
            f"import sys, json; sys.path[:0] = [{folder!r}, {str(Path(__file__).parent)!r}]; import published_api; "
            f"print(json.dumps(published_api.{reader}({module!r}, {folder!r})))"
        )
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        if run.returncode:
            raise SystemExit(f"{wheel.name}: {run.stderr.strip().splitlines()[-1]}")
        return json.loads(run.stdout.splitlines()[-1])


def write_empty_libraries(binary: Path, folder: Path) -> None:
    """Libraries with the names that ``binary`` was linked to, and between them all functions that it asks for."""
    dynamic = subprocess.run(["readelf", "-d", binary], check=True, capture_output=True, text=True).stdout
    libraries = [name for name in re.findall(r"NEEDED.*\[(.+)\]", dynamic) if name.startswith("libnv")]
    symbols = subprocess.run(["nm", "-D", "-u", binary], check=True, capture_output=True, text=True).stdout
    # What comes from the C and C++ libraries has a version, and Python is there.
    functions = [name for name in re.findall(r" U (\w+)$", symbols, re.MULTILINE) if not name.startswith(("Py", "_"))]
    for number, library in enumerate(libraries):
        source = "".join(f"void {name}(void) {{}}\n" for name in functions) if number == 0 else ""
        command = ["cc", "-shared", "-x", "c", "-", f"-Wl,-soname,{library}", "-o", str(folder / library)]
        subprocess.run(command, input=source, check=True, text=True)


def tensorrt_table(name: str, folder: str) -> dict[str, Any]:
    """TensorRT's table, from the compiled module alone: the package around it looks for its libraries."""
    package = ModuleType("tensorrt")
    package.__path__ = [str(next(Path(folder).rglob("tensorrt.so")).parent)]
    sys.modules["tensorrt"] = package
    sys.setdlopenflags(os.RTLD_LAZY)
    module = importlib.import_module(name)
    source = next(Path(package.__path__[0]).glob("__init__.py")).read_text()
    functions = sorted(re.findall(r"^def (\w+)", source, re.MULTILINE))
    return {"functions": functions, "classes": {path: class_table(module, path) for path in TENSORRT_CLASSES}}


def class_table(module: Any, path: str) -> dict[str, Any]:
    kind = module
    for part in path.split("."):
        kind = getattr(kind, part)
    if hasattr(kind, "__members__"):
        return {"members": sorted(kind.__members__)}
    methods: dict[str, list[str]] = {}
    properties: dict[str, str] = {}
    for name in sorted(dir(kind)):
        item = inspect.getattr_static(kind, name)
        if isinstance(item, property):
            text = (item.fget.__doc__ or "") if item.fget else ""
            properties[name] = returned(text)
        elif name == "__init__" or not name.startswith("__"):
            signatures = pybind_signatures(name, getattr(kind, name).__doc__ or "")
            if signatures:
                methods[name] = signatures
    return {"methods": methods, "properties": properties}


def pybind_signatures(name: str, doc: str) -> list[str]:
    """``flags? -> INetworkDefinition`` of each overload in a docstring that pybind11 wrote."""
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (.+)$", doc, re.MULTILINE)
    return [f"{', '.join(parameters(inside))} -> {short(result)}" for inside, result in lines if "*args" not in inside]


def parameters(inside: str) -> list[str]:
    pieces, depth = [""], 0
    for character in inside:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    names = [re.match(r"\s*(\w+)", piece) for piece in pieces if piece.strip()]
    optional = ["=" in piece for piece in pieces if piece.strip()]
    found = [match[1] + ("?" if may else "") for match, may in zip(names, optional, strict=True) if match]
    return (
        [parameter for parameter in found if parameter not in ("self", "arg0")]
        if found[:1] in (["self"], ["arg0"])
        else found
    )


def returned(doc: str) -> str:
    match = re.search(r"-> (.+)", doc)
    return short(match[1]) if match else ""


def short(kind: str) -> str:
    """The Python name of a type. Where a docstring was made before its Python name was known, it has the C++ one."""
    kind = kind.strip().replace("nvonnxparser::IParserError", "ParserError")
    return re.sub(r"tensorrt\.tensorrt\.|nvinfer1::(v_1_0::)?", "", kind)


def cuda_table(name: str, folder: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    functions = {}
    for function in CUDA_FUNCTIONS:
        (inside,) = re.findall(rf"^{function}\((.*?)\)", getattr(module, function).__doc__)
        # "size_t count" or "kind: cudaMemcpyKind"
        functions[function] = [piece.partition(":")[0].split()[-1] for piece in inside.split(", ") if piece]
    classes = {}
    for path in CUDA_CLASSES:
        kind = getattr(module, path)
        members = getattr(kind, "__members__", None)
        names = sorted(name for name in dir(kind) if not name.startswith("_"))
        classes[path] = {"members": sorted(members)} if members else {"properties": names}
    return {"functions": functions, "classes": classes}


if __name__ == "__main__":
    main(sys.argv[1:])
