"""Observation: run the float graph over a stream of inputs and keep what is needed of the tensors to be quantized.

Of every tensor the extremes of each channel are kept, exactly, and a random sample of rows (a row is one token's
activation, or what a convolution's kernel covers at one position). That is all that the later steps ask for, and it
takes the same memory for ten pictures and for ten thousand. Tokens count by how much they matter: the pooled token,
which becomes the embedding, is as likely to be sampled as all others of its input together, and padding behind a text's
end, which no other token sees, is left out. Of a tensor that has not one row for each token, such as the maps between
convolutions, all rows are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from clipedge.calibration.patches import Patches
from clipedge.calibration.storage import cpu_session
from clipedge.errors import CheckpointError, UsageError

__all__ = ["ROWS", "Observable", "Observation", "WeighTokens", "observe"]

Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.float64]
Observable: TypeAlias = str | Patches  # a tensor (rows, channels) by its name, or patches of one (B, C, H, W)
# A batch of inputs -> how much each of its tokens matters, (batch, tokens), none negative.
WeighTokens = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]

# Rows kept of each tensor. 512 rows of 768 channels are 400,000 values: enough to find the 99.99th percentile, and
# to judge a layer's output error to a few percent; a ViT-B keeps 130 MB in all.
ROWS = 512

# Activations that a run may return: of large maps there are gigabytes for a batch.
MAX_RETURNED_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Observation:
    """What a tensor took on: ``low`` and ``high`` (channels,), and ``rows`` (<= ROWS, numbers of a row).

    ``tokens`` is how many rows it has for one input.
    """

    low: Floats
    high: Floats
    rows: Floats
    tokens: int


class _Observer:
    """An Observation in the making, by bottom-k sampling: of all rows those ROWS with the smallest random keys."""

    def __init__(self, place: int) -> None:
        self.low: Floats | None = None
        self.high: Floats | None = None
        self._rows: list[Floats] = []
        self._keys: list[Keys] = []
        self._tokens = 0
        self._random = np.random.default_rng([1, place])

    def update(self, tensor: Observable, values: Floats, keys: Keys) -> None:
        """Add a run's values: (rows, channels), or maps. ``keys`` are those of the tokens, (samples, tokens).

        Raises ValueError for NaN or infinite values.
        """
        if isinstance(tensor, Patches):
            self._tokens = int(np.prod(tensor.grid(*values.shape[2:])))
            keys = self._keys_of_rows(keys)
        else:
            self._tokens = len(values) // len(keys)
            keys = self._keys_of_rows(keys)
            counted = np.isfinite(keys)  # an infinite key leaves a row out
            if not counted.all():
                values, keys = values[counted], keys[counted]
        self._extend(values)
        # Of one run no more than ROWS can stay, and copying those lets go of the run.
        chosen = np.argsort(keys)[:ROWS]
        rows = tensor.cut(values, chosen) if isinstance(tensor, Patches) else values[chosen]
        keys, rows = np.concatenate([*self._keys, keys[chosen]]), np.concatenate([*self._rows, rows])
        chosen = np.argsort(keys)[:ROWS]
        self._keys, self._rows = [keys[chosen]], [rows[chosen]]

    def _keys_of_rows(self, keys: Keys) -> Keys:
        if self._tokens == keys.shape[1]:
            return keys.ravel()
        if self._tokens == 1:
            return np.asarray(keys.min(axis=1))
        return self._random.random(len(keys) * self._tokens)

    def _extend(self, values: Floats) -> None:
        """Channels are the second axis, of rows and of maps."""
        others = tuple(axis for axis in range(values.ndim) if axis != 1)
        low, high = values.min(axis=others), values.max(axis=others)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ValueError("NaN or infinite values")
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def observation(self) -> Observation:
        assert self.low is not None and self.high is not None
        return Observation(self.low, self.high, self._rows[0], self._tokens)


def observe(
    model: onnx.ModelProto, tensors: Sequence[Observable], batches: Iterable[npt.NDArray[Any]], weigh: WeighTokens
) -> dict[Observable, Observation]:
    """Observe float tensors over all batches of the model's first input.

    A tensor has a row for each token of the batch, sample by sample, or one row for each sample, its pooled token, or
    any other number of rows, which then all matter alike. Memory holds the activations of a batch, or of a part of it,
    at a time, whatever the number of batches. Raises UsageError if there is no batch, CheckpointError for NaN or
    infinite activations.
    """
    names = list(dict.fromkeys(_tensor_name(tensor) for tensor in tensors))
    session = cpu_session(model, names)
    observers = {tensor: _Observer(place) for place, tensor in enumerate(tensors)}
    random = np.random.default_rng(0)
    empty = True
    for batch, returned in _runs(session, names, batches):
        empty = False
        weights = weigh(batch)
        with np.errstate(divide="ignore"):  # exponential keys: Efraimidis and Spirakis 2006, weighted sampling
            keys = -np.log(random.random(weights.shape)) / weights
        for tensor, observer in observers.items():
            name = _tensor_name(tensor)
            try:
                observer.update(tensor, returned[name], keys)
            except ValueError as error:
                raise CheckpointError(f"{name} has {error} on calibration inputs: the model is unsound") from None
    if empty:
        raise UsageError("calibration got no inputs; give it some hundreds of pictures of the kind the camera will see")
    return {tensor: observer.observation() for tensor, observer in observers.items()}


def _runs(
    session: Any, names: list[str], batches: Iterable[npt.NDArray[Any]]
) -> Iterator[tuple[npt.NDArray[Any], dict[str, Floats]]]:
    """Parts of the batches, and the tensors' values for each, as many samples at once as memory should hold."""
    input_name = session.get_inputs()[0].name
    size = 1
    for batch in batches:
        start = 0
        while start < len(batch):
            part = batch[start : start + size]
            returned = dict(zip(names, session.run(names, {input_name: part}), strict=True))
            yield part, returned
            start += len(part)
            size = max(1, MAX_RETURNED_BYTES * len(part) // sum(values.nbytes for values in returned.values()))


def _tensor_name(tensor: Observable) -> str:
    return tensor.tensor if isinstance(tensor, Patches) else tensor
