"""The calibrations of an export: made when first asked for, or read from the cache of an earlier one. And ranges."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from clipedge.calibration.cache import CalibrationCache, load_cache, save_cache
from clipedge.calibration.calibrate import Calibration, Observations, calibrate, observe_layers
from clipedge.calibration.half.magnitudes import magnitudes
from clipedge.calibration.rounding import SCHEMES
from clipedge.errors import UsageError
from clipedge.export.convert import SourceTower
from clipedge.export.finishing import check_tower, finish
from clipedge.export.streams import PixelStream
from clipedge.manifest import Precision, Target

__all__ = ["Calibrations", "check_int8_attention"]


def check_int8_attention(variants: Sequence[tuple[Precision, Target]]) -> None:
    """Raises UsageError for attention in INT8 without an INT8 variant for TensorRT."""
    targets = [target for kind, target in variants if kind == "int8"]
    if "tensorrt" not in targets:
        raise UsageError(
            "--int8-attention is for --precision int8 --target tensorrt, found INT8 for "
            f"{' and '.join(targets) or 'nothing'}: on processors attention is faster in float. Leave it out"
        )


class Calibrations:
    """Calibrations by target and tower. Observing a tower's tensors is done once for all targets. ``int8_attention``:
    those for TensorRT have ranges for attention, too. ``finish``: each is trained for so many steps
    (``clipedge.export.finishing``).

    Raises UsageError for a cache file that is none, that was made for another model, or that has no folder to lie in.
    """

    def __init__(
        self,
        space_id: str,
        pictures: PixelStream,
        cache: str | os.PathLike[str] | None,
        int8_attention: bool = False,
        finish: int = 0,
    ) -> None:
        self._space_id, self._pictures, self._path = space_id, pictures, cache
        self._int8_attention, self._finish = int8_attention, finish
        self._is_new = False
        self._observed: dict[str, Observations] = {}
        self._found: dict[tuple[str, str], Calibration] = {}
        self._cached_sha256: str | None = None
        self._used = False
        if cache is None:
            return
        if Path(cache).exists():
            self._read(cache)
        elif not Path(cache).absolute().parent.is_dir():
            raise UsageError(f"the calibration cache {cache} is to lie in a folder that does not exist; make it first")

    def of(self, source: SourceTower, graph: onnx.ModelProto, target: Target) -> Calibration:
        """The calibration of a tower's float graph for a target.

        Raises UsageError if the cache lacks it and was made on other pictures than those given now, and if it was
        finished there in another number of steps.
        """
        key = target, source.name
        attention = self._int8_attention and target == "tensorrt"
        self._used = True
        if self._finish:
            check_tower(graph)
        if key not in self._found or (attention and not self._found[key].attention):
            self._check_finished(key)
            if source.name not in self._observed:
                self._observed[source.name] = observe_layers(
                    graph, source.calibration, source.weigh, self._int8_attention
                )
                self._check_pictures("calibration", source.name, target)
            self._found[key] = calibrate(graph, self._observed[source.name], SCHEMES[target], attention)
            self._is_new = True
        if self._finish and self._found[key].finished != self._finish:
            self._check_finished(key)
            self._found[key] = finish(source, graph, self._found[key], SCHEMES[target], self._finish)
            self._check_pictures("finished calibration", source.name, target)
            self._is_new = True
        return self._found[key] if attention else replace(self._found[key], attention={})

    def magnitudes(self, source: SourceTower, graph: onnx.ModelProto) -> dict[str, float]:
        """How large the tensors of a tower's float graph become on the calibration inputs. Raises as ``inputs``."""
        return magnitudes(graph, self.inputs(source))

    def inputs(self, source: SourceTower) -> Iterator[npt.NDArray[Any]]:
        """A tower's calibration inputs themselves, batch by batch.

        Raises UsageError, after the last, if the cache was made on other pictures: one set has to stand for the whole
        export.
        """
        self._used = True
        yield from source.calibration
        if self._cached_sha256 and self._pictures.sha256 not in (None, self._cached_sha256):
            raise UsageError(
                f"{self._path} was made on other pictures than those given now, on which half precision is checked "
                "and FP8 made; give it the same ones, or name another file"
            )

    @property
    def sha256(self) -> str | None:
        """The hash of the pixels that were calibrated on, None if nothing was calibrated."""
        return (self._pictures.sha256 or self._cached_sha256) if self._used else None

    @property
    def description(self) -> str | None:
        """What was calibrated on, None if nothing was."""
        if not self._pictures.indices:
            return f"what {self._path} keeps of an earlier export" if self._used else None
        return self._pictures.description + (f", finished in {self._finish} steps" if self._finish else "")

    @property
    def unreadable(self) -> list[str]:
        """A line for each picture that was to be calibrated on and cannot be read."""
        return self._pictures.unreadable

    def save(self) -> None:
        """Write what was made to the cache file, if one was named."""
        if self._path is not None and self.sha256 is not None and self._is_new:
            save_cache(self._path, CalibrationCache(self._space_id, self.sha256, self._found))

    def _read(self, path: str | os.PathLike[str]) -> None:
        cache = load_cache(path)
        if cache.space_id != self._space_id:
            raise UsageError(
                f"{path} holds the calibration of another model (space {cache.space_id[:12]}…, this one is "
                f"{self._space_id[:12]}…); name another file, or delete it to calibrate again"
            )
        self._found, self._cached_sha256 = dict(cache.calibrations), cache.pictures_sha256

    def _check_finished(self, key: tuple[str, str]) -> None:
        """Raises UsageError rather than throw away what was trained."""
        if key in self._found and (steps := self._found[key].finished):
            attention = " and attention in INT8" if self._int8_attention else ""
            raise UsageError(
                f"{self._path} has a calibration of the {key[1]} tower for {key[0]} that was finished in {steps} "
                f"steps, now asked for are {self._finish} steps{attention}; leave that out, or name another file"
            )

    def _check_pictures(self, what: str, tower: str, target: Target) -> None:
        now = self._pictures.sha256
        if self._cached_sha256 and now and now != self._cached_sha256:
            raise UsageError(
                f"{self._path} has no {what} of the {tower} tower for {target}, and was made on other pictures "
                "than those given now; give it the same ones, or name another file"
            )
