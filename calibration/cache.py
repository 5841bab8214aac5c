"""Calibrations in a file: made once, read for the next export of the same model, and printed for a person."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipedge.calibration.calibrate import Calibration, IntegerWeight, LayerCalibration
from clipedge.calibration.observers import Range
from clipedge.errors import UsageError
from clipedge.whole import write_whole

__all__ = ["CalibrationCache", "cache_facts", "cache_lines", "load_cache", "save_cache"]

KEY = "clipedge_calibration"
VERSION = 2
READABLE = (1, 2)  # the first had no finished weights


@dataclass(frozen=True, eq=False)
class CalibrationCache:
    """Calibrations by (target, tower) of the model of a space, and the hash of the pixels that they were made on."""

    space_id: str
    pictures_sha256: str
    calibrations: Mapping[tuple[str, str], Calibration]


def save_cache(path: str | os.PathLike[str], cache: CalibrationCache) -> None:
    """Write a cache, or replace one: never half of it."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    for (target, tower), calibration in cache.calibrations.items():
        prefix = f"{target}.{tower}"
        tensors |= {f"{prefix}.shift.{name}": layer.shift for name, layer in calibration.layers.items()}
        tensors |= {f"{prefix}.scale.{place}": scale for place, scale in calibration.scales.items()}
        for name, (rounded, scale) in calibration.weights.items():
            tensors |= {f"{prefix}.weight.{name}": rounded, f"{prefix}.weight_scale.{name}": scale}
    write_whole(Path(path), save(tensors, {KEY: json.dumps(cache_facts(cache))}))


def load_cache(path: str | os.PathLike[str]) -> CalibrationCache:
    """Read a cache. Raises UsageError for a file that is none."""
    try:
        with safe_open(path, framework="numpy") as file:
            head = json.loads((file.metadata() or {})[KEY])
            if head["version"] not in READABLE:
                raise UsageError(
                    f"{path} has version {head['version']}, this clipedge reads up to {VERSION}; calibrate again"
                )
            found = {}
            for entry in head["towers"]:
                prefix = f"{entry['target']}.{entry['tower']}"
                layers = {
                    name: LayerCalibration(
                        Range(float(facts["low"]), float(facts["high"])),
                        str(facts["observer"]),
                        float(facts["strength"]),
                        file.get_tensor(f"{prefix}.shift.{name}"),
                        float(facts["snr_db"]),
                        int(facts["tokens"]),
                        Range(*map(float, facts["output"])) if facts.get("output") else None,
                    )
                    for name, facts in entry["layers"].items()
                }
                scales = {place: file.get_tensor(f"{prefix}.scale.{place}") for place in entry["places"]}
                attention = {
                    name: tuple(Range(*map(float, ends)) for ends in ranges)
                    for name, ranges in entry.get("attention", {}).items()
                }
                finished = entry.get("finished") or {"steps": 0, "weights": []}
                weights = {name: _integer_weight(file, prefix, name) for name in finished["weights"]}
                steps = int(finished["steps"])
                found[entry["target"], entry["tower"]] = Calibration(layers, scales, attention, weights, steps)
            return CalibrationCache(str(head["space_id"]), str(head["pictures_sha256"]), found)
    except UsageError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} is no calibration cache of clipedge, or a damaged one ({error}); name another file, or delete a "
            "damaged one and export again"
        ) from None


def _integer_weight(file: Any, prefix: str, name: str) -> IntegerWeight:
    rounded, scale = (file.get_tensor(f"{prefix}.{part}.{name}") for part in ("weight", "weight_scale"))
    if (rounded.dtype, rounded.ndim, scale.dtype) != (np.int8, 2, np.float32) or scale.shape != rounded.shape[1:]:
        raise ValueError(f"the weight of {name} is {rounded.dtype} {rounded.shape}, with scales {scale.shape}")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError(f"scales of the weight of {name} are not above zero")
    return rounded, scale


def cache_facts(cache: CalibrationCache) -> dict[str, Any]:
    """The cache for programs: its hashes, and the facts of every layer; of the scales only whose they are."""
    towers = [
        {
            "target": target,
            "tower": tower,
            "places": list(calibration.scales),
            "layers": {name: _facts(layer) for name, layer in calibration.layers.items()},
            "attention": {
                name: [[limits.low, limits.high] for limits in ranges] for name, ranges in calibration.attention.items()
            },
            "finished": {"steps": calibration.finished, "weights": list(calibration.weights)}
            if calibration.finished
            else None,
        }
        for (target, tower), calibration in cache.calibrations.items()
    ]
    return {"version": VERSION, "space_id": cache.space_id, "pictures_sha256": cache.pictures_sha256, "towers": towers}


def cache_lines(cache: CalibrationCache) -> list[str]:
    """The cache as a table for a terminal."""
    lines = [f"calibration of the model with space {cache.space_id[:12]}…, pictures {cache.pictures_sha256[:12]}…"]
    for (target, tower), calibration in cache.calibrations.items():
        columns = f"{'low':>10}{'high':>10}  {'observer':10}{'smoothing':>10}{'SNR (dB)':>10}"
        if any(layer.output for layer in calibration.layers.values()):
            columns += f"{'output to':>11}"
        finished = f", finished in {calibration.finished} steps" if calibration.finished else ""
        lines += ["", f"  {f'{tower} tower, target {target}{finished}':34}{columns}"]
        for name, layer in calibration.layers.items():
            smoothing = format(layer.strength, ".2f") if layer.strength else "none"
            limits = f"{layer.limits.low:10.3f}{layer.limits.high:10.3f}"
            output = f"{max(-layer.output.low, layer.output.high):11.3f}" if layer.output else ""
            lines.append(f"  {name:34}{limits}  {layer.observer:10}{smoothing:>10}{layer.snr_db:10.1f}{output}")
    return lines


def _facts(layer: LayerCalibration) -> dict[str, Any]:
    return {
        "low": layer.limits.low,
        "high": layer.limits.high,
        "observer": layer.observer,
        "strength": layer.strength,
        "snr_db": layer.snr_db,
        "tokens": layer.tokens,
        "output": [layer.output.low, layer.output.high] if layer.output else None,
    }
