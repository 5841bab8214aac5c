"""``python -m clipedge.doctor.probe ENGINE``: whether an engine works, as JSON, from a process that it may take down.

A library built for another processor ends its process (SIGILL), and a broken driver may hang; doctor survives both.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from clipedge.backends import open_engine
from clipedge.doctor.graph import WEIGHTS, probe_graph, probe_variant
from clipedge.errors import BackendError, MissingDependencyError

__all__ = ["Probe", "probe"]


@dataclass(frozen=True)
class Probe:
    """``state``: "works", "missing" (not installed) or "broken". ``devices`` are the further ones that it was tried on.

    ``detail`` says what is wrong, or what was tried.
    """

    engine: str
    state: str
    version: str | None
    detail: str
    devices: dict[str, str]


def probe(engine: str) -> Probe:
    """Open the smallest graph in the engine, run it, and compare."""
    return _tensorrt() if engine == "tensorrt" else _graph_engine(engine)


def _graph_engine(engine: str) -> Probe:
    x = np.linspace(-1, 1, 2 * len(WEIGHTS), dtype=np.float32).reshape(2, -1)
    with tempfile.TemporaryDirectory(prefix="clipedge-doctor-") as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(probe_graph())
        try:
            opened = open_engine(path, probe_variant(), engine)
            right = np.allclose(opened(x), x @ WEIGHTS, atol=1e-5)
            devices = _providers(path, x) if engine == "onnxruntime" else {}
        except MissingDependencyError as error:
            return Probe(engine, "missing", None, str(error), {})
        except BackendError as error:
            return Probe(engine, "broken", None, str(error), {})
    detail = f"computed on {opened.device}" if right else "computes wrong numbers: install it again"
    return Probe(engine, "works" if right else "broken", opened.version, detail, devices)


def _providers(path: Path, x: np.ndarray[Any, Any]) -> dict[str, str]:
    """Whether ONNX Runtime's GPU providers, as far as its build has them, really take the graph."""
    runtime = import_module("onnxruntime")
    found = {}
    for name in runtime.get_available_providers():
        if name in ("CUDAExecutionProvider", "TensorrtExecutionProvider"):
            try:
                session = runtime.InferenceSession(str(path), providers=[name])
                session.disable_fallback()
                right = np.allclose(session.run(["y"], {"x": x})[0], x @ WEIGHTS, atol=1e-2)
                taken = session.get_providers()[0] == name
                found[name] = "works" if right and taken else f"does not work: ran on {session.get_providers()[0]}"
            except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
                found[name] = f"does not work: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return found


def _tensorrt() -> Probe:
    """TensorRT runs engines that were built before, so what can be asked here is whether its runtime starts."""
    try:
        library = import_module("tensorrt")
        runtime = library.Runtime(library.Logger(library.Logger.ERROR))
    except ModuleNotFoundError:
        return Probe("tensorrt", "missing", None, "TensorRT's Python package is not installed", {})
    except Exception as error:  # ImportError where libnvinfer is missing; TypeError where its runtime does not start
        return Probe("tensorrt", "broken", None, f"{type(error).__name__}: {error}", {})
    detail = "its runtime starts; an engine is tried by `clipedge inspect`" if runtime else "its runtime does not start"
    return Probe("tensorrt", "works" if runtime else "broken", str(library.__version__), detail, {})


def main(engine: str) -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)  # engines written in C++ print to descriptor 1; the report alone belongs there
        json.dump(asdict(probe(engine)), out)


if __name__ == "__main__":
    main(sys.argv[1])
