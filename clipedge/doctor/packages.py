"""What of ClipEdge's extras is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions

__all__ = ["EXTRAS", "RUNTIMES", "installed_packages", "missing_extras", "rival_runtimes"]

# extra -> (packages that it brings, any of which tells; what it is for). The engines' extras stand in advice.py.
EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "text": (("tokenizers",), "encoding texts on this machine; with prompt banks it is not needed"),
    "parquet": (("pyarrow",), "writing indexes for vector databases"),
    "camera": (("opencv-python-headless", "opencv-python"), "watching cameras and videos: clipedge watch"),
    "export": (("torch",), "exporting models: a workstation's job"),
}
# Each of these is ONNX Runtime, in the same folder: whichever was installed last has overwritten files of the others.
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn")


def installed_packages(found: Iterable[Distribution] | None = None) -> dict[str, str]:
    """Version by name, in lower case with hyphens; ``found`` are the packages to look at (default: all)."""
    names: dict[str, str] = {}
    for item in distributions() if found is None else found:
        name = item.metadata["Name"]
        if name:  # a folder that an interrupted removal left behind has none
            names.setdefault(re.sub(r"[-_.]+", "-", name).lower(), item.version)
    return names


def rival_runtimes(packages: Mapping[str, str]) -> tuple[str, ...]:
    """The packages of ONNX Runtime, if there are several."""
    found = tuple(name for name in RUNTIMES if name in packages)
    return found if len(found) > 1 else ()


def missing_extras(packages: Mapping[str, str]) -> dict[str, str]:
    """What each extra that is not installed is for."""
    return {extra: use for extra, (names, use) in EXTRAS.items() if not any(name in packages for name in names)}
