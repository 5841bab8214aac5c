"""Stand-ins for NVIDIA's bindings, generated from the tables of what they publish (``published_api.py``).

A stand-in has the classes, methods and parameters of one published version and nothing else: what that version lacks is
an AttributeError, a parameter that it does not name a TypeError. Each call is written down and returns a stand-in of
the type that the table names; values are the test's to give. Nothing here knows what TensorRT does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

TABLES = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "published").glob("*.json")}
TENSORRTS = sorted(name for name in TABLES if name.startswith("tensorrt"))
CUDAS = sorted(name for name in TABLES if name.startswith("cuda"))
PLAIN = {"bool": True, "int": 0, "str": "", "None": None}


@dataclass
class Nvidia:
    """The calls made, in order, and what the test wants calls and properties to return, by ``Class.name``."""

    tensorrt: ModuleType
    cuda: ModuleType
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def of(self, name: str) -> list[dict[str, Any]]:
        """The arguments of each call of ``name``."""
        return [arguments for called, arguments in self.calls if called == name]


@pytest.fixture(params=[(trt, CUDAS[-1]) for trt in TENSORRTS] + [(TENSORRTS[0], CUDAS[0])], ids="-".join)
def nvidia(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvidia]:
    """``tensorrt`` and ``cuda.bindings.runtime`` as of one pair of published versions; our own modules read anew."""
    tensorrt, cuda = (TABLES[name] for name in request.param)
    bindings = Nvidia(ModuleType("tensorrt"), ModuleType("cuda.bindings.runtime"))
    add_classes(bindings, bindings.tensorrt, tensorrt["classes"])
    bindings.tensorrt.__version__ = tensorrt["version"]  # type: ignore[attr-defined]
    bindings.tensorrt.nptype = lambda kind: bindings.answers["nptype"](kind)  # type: ignore[attr-defined]
    assert "nptype" in tensorrt["functions"]
    add_classes(bindings, bindings.cuda, cuda["classes"])
    for name, signature in cuda["functions"].items():
        setattr(bindings.cuda, name, cuda_function(bindings, name, signature))
    packages = {"cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings")}
    packages["cuda.bindings"].runtime = bindings.cuda  # type: ignore[attr-defined]
    for name, module in {**packages, "tensorrt": bindings.tensorrt, "cuda.bindings.runtime": bindings.cuda}.items():
        monkeypatch.setitem(sys.modules, name, module)
    ours = ("clipedge.backends.cuda", "clipedge.backends.tensorrt", "clipedge.engines.tensorrt_builder")
    for name in ours:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield bindings
    for name in ours:
        sys.modules.pop(name, None)


def add_classes(bindings: Nvidia, module: ModuleType, tables: dict[str, Any]) -> None:
    made: dict[str, type] = {}
    for path, table in sorted(tables.items()):  # an outer class before those in it
        outer, _, name = path.rpartition(".")
        made[path] = enumeration(name, table) if "members" in table else stand_in(bindings, path, table, made)
        setattr(made[outer] if outer else module, name, made[path])


def enumeration(name: str, table: dict[str, Any]) -> type:
    return IntEnum(name, {member: number for number, member in enumerate(table["members"])})  # type: ignore[return-value]


def stand_in(bindings: Nvidia, path: str, table: dict[str, Any], made: dict[str, type]) -> type:
    methods = table.get("methods", {})
    space: dict[str, Any] = {"__slots__": ("__dict__", "__weakref__")} | {
        name: method(bindings, f"{path}.{name}", signatures, made) for name, signatures in methods.items()
    }
    if "__init__" not in methods:
        space["__init__"] = lambda self: None

    def read(name: str, kind: str) -> property:
        def get(self: Any) -> Any:
            return answer(bindings, f"{path}.{name}", kind, made, self, {})

        return property(get, lambda self, value: bindings.calls.append((f"{path}.{name}", {"value": value})))

    properties = table.get("properties", {})
    kinds = properties if isinstance(properties, dict) else dict.fromkeys(properties, "")
    return type(path, (), space | {name: read(name, kind) for name, kind in kinds.items() if name not in space})


def method(bindings: Nvidia, path: str, signatures: list[str], made: dict[str, type]) -> Callable[..., Any]:
    def call(self: Any, *values: Any, **named: Any) -> Any:
        for signature in signatures:
            inside, _, result = signature.rpartition("-> ")
            arguments = bound([name for name in inside.strip().split(", ") if name], values, named)
            if arguments is not None:
                bindings.calls.append((path, arguments))
                return answer(bindings, path, result, made, self, arguments)
        raise TypeError(f"{path} takes {signatures}, found {values} and {named}")

    return call


def bound(parameters: list[str], values: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments by name; None if they do not fit."""
    names = [parameter.rstrip("?") for parameter in parameters]
    arguments = dict(zip(names, values, strict=False))
    twice = len(values) > len(names) or set(arguments) & set(named) or set(named) - set(names)
    arguments |= named
    needed = {parameter for parameter in parameters if not parameter.endswith("?")}
    return None if twice or not needed <= set(arguments) else arguments


def answer(bindings: Nvidia, path: str, kind: str, made: dict[str, type], owner: Any, arguments: dict[str, Any]) -> Any:
    if path in bindings.answers:
        given = bindings.answers[path]
        return given(**arguments) if callable(given) else given
    if kind in made:
        return object.__new__(made[kind])
    return PLAIN.get(kind)


def cuda_function(bindings: Nvidia, name: str, names: list[str]) -> Callable[..., Any]:
    """Of CUDA's runtime: success, and what the test gave or the number 0."""

    def call(*values: Any) -> tuple[Any, ...]:
        if len(values) != len(names):
            raise TypeError(f"{name} takes {names}, found {values}")
        bindings.calls.append((name, dict(zip(names, values, strict=False))))
        success = bindings.cuda.cudaError_t.cudaSuccess  # type: ignore[attr-defined]
        given = bindings.answers.get(name, ())
        results = given(*values) if callable(given) else given
        return (success, *results)

    return call


@pytest.fixture
def memory(nvidia: Nvidia) -> dict[int, np.ndarray]:
    """Real memory behind the addresses that the stand-in of CUDA hands out; copies copy, as ``memcpy`` does."""
    blocks: dict[int, np.ndarray] = {}

    def allocate(size: int) -> tuple[int]:
        block = np.zeros(size, np.uint8)
        blocks[block.ctypes.data] = block
        return (block.ctypes.data,)

    def copy(target: int, source: int, count: int, *_: Any) -> tuple[()]:
        blocks[target][:count] = blocks[source][:count]
        return ()

    nvidia.answers |= {"cudaMallocHost": allocate, "cudaMalloc": allocate, "cudaMemcpyAsync": copy}
    nvidia.answers |= {"cudaStreamCreate": (7,), "cudaGetDevice": (0,)}
    nvidia.answers["cudaGetDeviceProperties"] = lambda number: (Properties(),)
    return blocks


class Properties:
    name, major, minor, totalGlobalMem = b"Orin", 8, 7, 8 << 30  # noqa: N815
