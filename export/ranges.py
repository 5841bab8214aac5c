"""The calibrations of an export: made when first asked for, or read from the cache of an earlier one."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from clipedge.calibration.cache import CalibrationCache, load_cache, save_cache
from clipedge.calibration.calibrate import Calibration, calibrate, observe_layers
from clipedge.calibration.observe import Observation
from clipedge.calibration.rounding import SCHEMES
from clipedge.errors import UsageError
from clipedge.export.convert import SourceTower
from clipedge.export.streams import PixelStream
from clipedge.manifest import Target

__all__ = ["Calibrations"]


class Calibrations:
    """Calibrations by target and tower. Observing a tower's tensors is done once for all targets.

    Raises UsageError for a cache file that is none, or that was made for another model.
    """

    def __init__(self, space_id: str, pictures: PixelStream, cache: str | os.PathLike[str] | None) -> None:
        self._space_id, self._pictures, self._path = space_id, pictures, cache
        self._observed: dict[str, dict[str, Observation]] = {}
        self._found: dict[tuple[str, str], Calibration] = {}
        self._cached_sha256: str | None = None
        if cache is not None and Path(cache).exists():
            self._read(cache)

    def of(self, source: SourceTower, graph: onnx.ModelProto, target: Target) -> Calibration:
        """The calibration of a tower's float graph for a target."""
        key = target, source.name
        if key not in self._found:
            if source.name not in self._observed:
                self._observed[source.name] = observe_layers(graph, source.calibration, source.weigh)
            self._found[key] = calibrate(graph, self._observed[source.name], SCHEMES[target])
        return self._found[key]

    @property
    def sha256(self) -> str | None:
        """The hash of the pixels that were calibrated on, None if nothing was calibrated."""
        return self._pictures.sha256 or (self._cached_sha256 if self._found else None)

    def save(self) -> None:
        """Write what was made to the cache file, if one was named."""
        if self._path is not None and self.sha256 is not None and self._observed:
            save_cache(self._path, CalibrationCache(self._space_id, self.sha256, self._found))

    def _read(self, path: str | os.PathLike[str]) -> None:
        cache = load_cache(path)
        if cache.space_id != self._space_id:
            raise UsageError(
                f"{path} holds the calibration of another model (space {cache.space_id[:12]}…, this one is "
                f"{self._space_id[:12]}…); name another file, or delete it to calibrate again"
            )
        self._found, self._cached_sha256 = dict(cache.calibrations), cache.pictures_sha256
