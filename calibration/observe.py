"""Observation: run the float graph over a stream of inputs and keep what is needed of the tensors to be quantized.

Of every tensor the extremes of each channel are kept, exactly, and a random sample of rows (a row is one token's
activation). That is all that the later steps ask for, and it takes the same memory for ten pictures and for ten
thousand. Tokens count by how much they matter: the pooled token, which becomes the embedding, is as likely to be
sampled as all others of its input together, and padding behind a text's end, which no other token sees, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.storage import cpu_session
from clipedge.errors import CheckpointError, UsageError

__all__ = ["ROWS", "Observation", "WeighTokens", "observe"]

Floats = npt.NDArray[np.float32]
# A batch of inputs -> how much each of its tokens matters, (batch, tokens), none negative.
WeighTokens = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]

# Rows kept of each tensor. 512 rows of 768 channels are 400,000 values: enough to find the 99.99th percentile, and
# to judge a layer's output error to a few percent; a ViT-B keeps 130 MB in all.
ROWS = 512


@dataclass(frozen=True, eq=False)
class Observation:
    """What a tensor (tokens, channels) took on: ``low`` and ``high`` (channels,), and ``rows`` (<= ROWS, channels).

    ``tokens`` is how many rows it has for one input.
    """

    low: Floats
    high: Floats
    rows: Floats
    tokens: int


class _Observer:
    """An Observation in the making, by bottom-k sampling: of all rows those ROWS with the smallest random keys."""

    def __init__(self) -> None:
        self.low: Floats | None = None
        self.high: Floats | None = None
        self._rows: list[Floats] = []
        self._keys: list[npt.NDArray[np.float64]] = []

    def update(self, values: Floats, keys: npt.NDArray[np.float64]) -> None:
        """Add rows (n, channels) with their keys (n,); an infinite key leaves a row out.

        Raises ValueError for NaN or infinite values.
        """
        counted = np.isfinite(keys)
        if not counted.all():
            values, keys = values[counted], keys[counted]
        low, high = values.min(axis=0), values.max(axis=0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("NaN or infinite values")
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        # Of one batch no more than ROWS can stay, and copying those lets go of the batch.
        chosen = np.argsort(keys)[:ROWS]
        keys = np.concatenate([*self._keys, keys[chosen]])
        rows = np.concatenate([*self._rows, values[chosen]])
        chosen = np.argsort(keys)[:ROWS]
        self._keys, self._rows = [keys[chosen]], [rows[chosen]]

    def observation(self, tokens: int) -> Observation:
        assert self.low is not None and self.high is not None
        return Observation(self.low, self.high, self._rows[0], tokens)


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Iterable[npt.NDArray[Any]], weigh: WeighTokens
) -> dict[str, Observation]:
    """Observe the named float tensors over all batches of the model's first input.

    A tensor has a row for each token of the batch, sample by sample, or one row for each sample, its pooled token.
    Memory holds one batch's activations at a time, whatever the number of batches. Raises UsageError if there is no
    batch, CheckpointError for NaN or infinite activations.
    """
    session = cpu_session(model, tensors)
    input_name = session.get_inputs()[0].name
    observers = {name: _Observer() for name in tensors}
    tokens: dict[str, int] = {}
    random = np.random.default_rng(0)
    for batch in batches:
        weights = weigh(batch)
        with np.errstate(divide="ignore"):  # exponential keys: Efraimidis and Spirakis 2006, weighted sampling
            keys = -np.log(random.random(weights.shape)) / weights
        for name, values in zip(tensors, session.run(list(tensors), {input_name: batch}), strict=True):
            tokens[name] = len(values) // len(batch)
            try:
                observers[name].update(values, keys.min(axis=1) if tokens[name] == 1 else keys.ravel())
            except ValueError as error:
                raise CheckpointError(f"{name} has {error} on calibration inputs: the model is unsound") from None
    if not tokens:
        raise UsageError("calibration got no inputs; give it some hundreds of pictures of the kind the camera will see")
    return {name: observer.observation(tokens[name]) for name, observer in observers.items()}
