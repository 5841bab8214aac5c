"""Calibration: how each layer's input is to be quantized, decided by the error of the layer's own output.

Range observers and smoothing strengths only make proposals. Each proposal is tried on the sampled rows: the layer is
computed in the target's integer arithmetic and compared with its float output, and the one with the least noise wins.
What counts is the noise that bias correction leaves: the mean error of each output channel is a constant, which the
bias takes up for free (Nagel et al. 2019, "Data-free quantization", arXiv 1906.04721, section 4.2).

A convolution is the product of its weights with the patches under its kernel, and is decided about in the same way.
Its output is quantized with the range that the layers which read it found; where none does, with the least error.
Where a target leaves outputs in float, the layers that read one still share a range: it is then quantized once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.attention import attention_ranges, attentions
from clipedge.calibration.convolutions import Convolution
from clipedge.calibration.equalize import Smoothing, fold_scales, smoothing_places, smoothing_scale
from clipedge.calibration.layers import Layer, calibrated_layers, readers_of
from clipedge.calibration.linears import Constants, constants_of
from clipedge.calibration.observe import Observable, Observation, WeighTokens, observe
from clipedge.calibration.observers import OBSERVERS, Range, minmax_range, mse_range
from clipedge.calibration.pointwise import pointwise_as_linear
from clipedge.calibration.rounding import Scheme, quantize_weight, restored_weight, round_trip
from clipedge.errors import UsageError

__all__ = [
    "Calibration",
    "IntegerWeight",
    "LayerCalibration",
    "Observations",
    "calibrate",
    "minmax_calibration",
    "observe_layers",
]

Floats = npt.NDArray[np.float32]
Observations: TypeAlias = Mapping[Observable, Observation]
IntegerWeight: TypeAlias = tuple[npt.NDArray[np.int8], Floats]

# Zero is no smoothing at all. One strength for a whole model is a gamble (a wrong one cost a published recipe ten
# points), so every place finds its own.
STRENGTHS = (0.0, 0.3, 0.5, 0.65, 0.8)
TINY = 1e-30  # a layer that gives nothing but a constant has no signal, one without error no noise
SIGNIFICANT = 3.0  # standard errors
# Enough to compare strengths by; at the winning one all observers are tried on all rows.
QUICK_OBSERVERS = ("minmax", "mse")
QUICK_ROWS = 256


@dataclass(frozen=True, eq=False)
class LayerCalibration:
    """One layer in INT8.

    ``limits`` is the range of its input (after smoothing), ``observer`` who proposed it, ``strength`` that of the
    smoothing (0: none). ``shift`` (out,) is added to the bias. ``snr_db`` is the signal-to-noise ratio of the layer's
    output after that correction, in dB; ``tokens`` how many rows it computes for one input. ``output`` is the range of
    its output, of convolutions alone (behind the ReLU; not counted in ``snr_db``), None where that stays in float.
    """

    limits: Range
    observer: str
    strength: float
    shift: Floats
    snr_db: float
    tokens: int
    output: Range | None = None


@dataclass(frozen=True, eq=False)
class Calibration:
    """What ``quantize`` needs to know of a graph: its layers by name, and the smoothing scales by place.

    ``attention`` has the ranges of queries, keys, weights and values by the attention's output layer; it is empty where
    attention stays in float. ``weights`` are int8 matrices (in, out) and their scales (out,) by layer, the patch
    embedding among them, where training chose them in ``finished`` steps (``clipedge.export.finishing``; ``snr_db`` of
    the layers is then what it was before). Other weights are rounded to the nearest.
    """

    layers: Mapping[str, LayerCalibration]
    scales: Mapping[str, Floats]
    attention: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    weights: Mapping[str, IntegerWeight] = field(default_factory=dict)
    finished: int = 0

    def of(self, layer: str) -> LayerCalibration:
        """Raises UsageError for a layer that was not calibrated."""
        if layer not in self.layers:
            raise UsageError(f"the calibration has nothing for layer {layer}; calibrate this model again")
        return self.layers[layer]

    def integer_weight(self, layer: str, matrix: Floats, scheme: Scheme) -> IntegerWeight:
        """The (in, out) weight of a layer in int8, and its scales (out,).

        Raises UsageError for a trained one of another shape, or with larger numbers than the target bears.
        """
        if layer not in self.weights:
            return quantize_weight(matrix, scheme.weight_limit, scheme.per_channel)
        rounded, scale = self.weights[layer]
        largest = int(np.abs(rounded.astype(np.int16)).max(initial=0))
        if rounded.shape != matrix.shape or largest > scheme.weight_limit:
            raise UsageError(
                f"the calibration has a weight {rounded.shape} up to {largest} for layer {layer}, expected "
                f"{matrix.shape} up to {scheme.weight_limit}; calibrate this model again"
            )
        return rounded, scale


@dataclass(frozen=True, eq=False)
class _Trial:
    """A layer in float: what its input took on, its weight, and its output for the input's rows."""

    seen: Observation
    weight: Floats
    output: Floats

    def signal(self) -> float:
        return max(float(self.output.var(axis=0).sum()), TINY)


def observe_layers(
    model: onnx.ModelProto, batches: Iterable[npt.NDArray[Any]], weigh: WeighTokens, attention: bool = False
) -> dict[Observable, Observation]:
    """Observe what ``calibrate`` asks about, over a stream of input batches: the input of every layer, the outputs of
    convolutions that no layer reads, and, if asked for, what goes into attention's products.

    The patch embedding needs nothing: its input is bytes. Raises UsageError if the stream is empty.
    """
    model = pointwise_as_linear(model)
    layers = calibrated_layers(model)
    watched = [layer.observed for layer in layers]
    watched += [layer.outcome for layer in _convolutions(layers) if not readers_of(model, layer.output, layers)]
    if attention:
        watched += [what for found in attentions(model) for what in found.observed]
    return observe(model, list(dict.fromkeys(watched)), batches, weigh)


def calibrate(
    model: onnx.ModelProto, observed: Observations, scheme: Scheme, attention: bool = False, smoothing: bool = True
) -> Calibration:
    """Decide for every layer of a float graph, and for its attention if asked for; ``observed`` is what
    ``observe_layers`` saw of it. Without ``smoothing`` all channels stay as large as they are."""
    model = pointwise_as_linear(model)
    layers, observations = calibrated_layers(model), dict(observed)
    constants = constants_of(model)
    places = smoothing_places(model, layers, constants) if smoothing else []
    # Attention outputs first: their scales divide the value projections, whose outputs the norms' choices are judged
    # by, and one value channel that is larger than all others would drown them.
    places.sort(key=lambda place: place.kind != "attention")
    scales: dict[str, Floats] = {}
    strengths: dict[str, float] = {}
    for place in places:
        members = [_trial(layer, observations, constants, QUICK_ROWS) for layer in place.layers]
        strength, scale = _best_strength(place, members, scheme)
        strengths |= {layer.name: strength for layer in place.layers}
        if strength:
            scales[place.name] = scale
            fold_scales(constants, [place], scales)
            for activation in {layer.activation for layer in place.layers}:
                observations[activation] = _scaled(observations[activation], scale)
    decided = {
        layer.name: _decide(_trial(layer, observations, constants), strengths.get(layer.name, 0.0), scheme)
        for layer in layers
    }
    for layer in _convolutions(layers):
        readers = readers_of(model, layer.output, layers)
        output = _output_range(layer, [decided[reader.name] for reader in readers], observations, scheme)
        for reader in readers:
            found = decided[reader.name]
            if found.limits != output:
                trial = _trial(reader, observations, constants)
                decided[reader.name] = _judged(trial, found.strength, scheme, "shared", output)
        if not scheme.only_inputs:
            decided[layer.name] = replace(decided[layer.name], output=output)
    products = attentions(model) if attention else []
    return Calibration(decided, scales, {item.out: attention_ranges(item, observed, scales) for item in products})


def minmax_calibration(model: onnx.ModelProto, observed: Observations) -> Calibration:
    """What a plain quantizer does: the whole range that was seen, nothing smoothed, nothing corrected."""
    model = pointwise_as_linear(model)
    layers = calibrated_layers(model)
    plain = {}
    for layer in layers:
        seen = observed[layer.observed]
        shift = np.zeros(1, np.float32)
        plain[layer.name] = LayerCalibration(_whole(seen), "minmax", 0.0, shift, float("nan"), seen.tokens)
    for layer in _convolutions(layers):
        ranges = [plain[reader.name].limits for reader in readers_of(model, layer.output, layers)]
        output = ranges[0] if ranges else _whole(observed[layer.outcome])  # all readers saw the same
        plain[layer.name] = replace(plain[layer.name], output=output)
    return Calibration(plain, {})


def _output_range(
    layer: Convolution, readers: Sequence[LayerCalibration], observations: Observations, scheme: Scheme
) -> Range:
    """Of a tensor that is quantized once for all: what its readers need, together."""
    if readers:
        return Range(min(found.limits.low for found in readers), max(found.limits.high for found in readers))
    seen = observations[layer.outcome]
    return mse_range(seen.rows, _is_symmetric(seen, scheme))


def _whole(seen: Observation) -> Range:
    return minmax_range(np.stack([seen.low, seen.high]))


def _convolutions(layers: Sequence[Layer]) -> list[Convolution]:
    return [layer for layer in layers if isinstance(layer, Convolution)]


def _trial(layer: Layer, observations: Observations, constants: Constants, rows: int | None = None) -> _Trial:
    seen, weight = observations[layer.observed], layer.matrix(constants[layer.weight])
    seen = replace(seen, rows=seen.rows[:rows])
    return _Trial(seen, weight, seen.rows @ weight)


def _scaled(seen: Observation, scale: Floats) -> Observation:
    return Observation(seen.low / scale, seen.high / scale, seen.rows / scale, seen.tokens)


def _best_strength(place: Smoothing, members: Sequence[_Trial], scheme: Scheme) -> tuple[float, Floats]:
    """The strength with the least noise relative to the signal, over all layers of the place, and its scales."""
    largest = np.max([np.maximum(-trial.seen.low, trial.seen.high) for trial in members], axis=0)
    weights = [trial.weight for trial in members]
    best: tuple[float, float, Floats] | None = None
    for strength in STRENGTHS:
        scale = smoothing_scale(largest, weights, strength) if strength else np.ones(place.channels, np.float32)
        noise = 0.0
        for trial in members:
            smoothed = _Trial(_scaled(trial.seen, scale), trial.weight * scale[:, None], trial.output)
            weight = restored_weight(smoothed.weight, scheme)
            candidates = _proposals(smoothed, scheme, QUICK_OBSERVERS).values()
            noise += min(_noise(smoothed, weight, limits, scheme) for limits in candidates) / trial.signal()
        if best is None or noise < best[0]:
            best = noise, strength, scale
    assert best is not None
    return best[1], best[2]


def _decide(trial: _Trial, strength: float, scheme: Scheme) -> LayerCalibration:
    weight = restored_weight(trial.weight, scheme)
    proposals = _proposals(trial, scheme, tuple(OBSERVERS))
    observer = min(proposals, key=lambda name: _noise(trial, weight, proposals[name], scheme))
    return _judged(trial, strength, scheme, observer, proposals[observer])


def _judged(trial: _Trial, strength: float, scheme: Scheme, observer: str, limits: Range) -> LayerCalibration:
    weight = restored_weight(trial.weight, scheme)
    error = trial.output - round_trip(trial.seen.rows, limits, scheme) @ weight
    noise = max(float(error.var(axis=0).sum()), TINY)
    snr_db = float(10 * np.log10(trial.signal() / noise))
    return LayerCalibration(limits, observer, strength, _mean_error(error), snr_db, trial.seen.tokens)


def _mean_error(error: Floats) -> Floats:
    """The mean of (rows, out) errors where it stands out from their noise, else zero: a mean of few samples is noise
    itself, and correcting by it does harm."""
    mean, uncertainty = error.mean(axis=0), error.std(axis=0) / np.sqrt(len(error))
    return np.where(np.abs(mean) > SIGNIFICANT * uncertainty, mean, 0).astype(np.float32)


def _proposals(trial: _Trial, scheme: Scheme, observers: Sequence[str]) -> dict[str, Range]:
    """A range by each observer. A channel that never changes is shown to min-max alone: the others would spend steps
    on it, and whatever its error, it is a constant that the bias takes up."""
    seen = trial.seen
    changing = seen.high - seen.low > 1e-3 * np.maximum(-seen.low, seen.high)
    changing = np.repeat(changing, seen.rows.shape[1] // len(changing))  # a channel has its patch side by side
    rows = seen.rows[:, changing] if changing.any() else seen.rows
    extremes = np.stack([seen.low, seen.high])
    symmetric = _is_symmetric(seen, scheme)
    return {name: OBSERVERS[name](extremes if name == "minmax" else rows, symmetric) for name in observers}


def _is_symmetric(seen: Observation, scheme: Scheme) -> bool:
    return scheme.is_symmetric(float(seen.low.min()))


def _noise(trial: _Trial, weight: Floats, limits: Range, scheme: Scheme) -> float:
    """The variance of the output's error around its mean, summed over the output channels."""
    error = trial.output - round_trip(trial.seen.rows, limits, scheme) @ weight
    return float(error.var(axis=0).sum())
