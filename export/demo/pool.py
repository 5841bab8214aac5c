"""Training pictures, drawn once and read many times."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clipedge.calibration.scenes import render, sample_scene

__all__ = ["Pool", "batches", "draw_pool"]

_CHUNK = 1000  # scenes that a process draws at a time


@dataclass(frozen=True)
class Pool:
    """pictures: uint8 (N, size, size, 3) RGB, in a file mapped to memory. captions: for each, all its wordings."""

    pictures: NDArray[np.uint8]
    captions: list[tuple[str, ...]]


def draw_pool(path: Path, count: int, size: int) -> Pool:
    """Draws the first ``count`` scenes of the split "train", in one process for each processor, to a file."""
    pictures = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3))
    chunks = [(path, start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    captions: list[tuple[str, ...]] = []
    if len(chunks) == 1:  # starting processes would take longer
        return Pool(pictures, _draw_chunk(chunks[0]))
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as executor:
        for part in tqdm(executor.map(_draw_chunk, chunks), "scenes", len(chunks), unit="k", disable=None):
            captions += part
    return Pool(pictures, captions)


def _draw_chunk(chunk: tuple[Path, int, int]) -> list[tuple[str, ...]]:
    path, start, stop = chunk
    pictures = np.lib.format.open_memmap(path, "r+")
    size = pictures.shape[1]
    captions = []
    for index in range(start, stop):
        rendered = render(sample_scene("train", index), size, size)
        pictures[index] = rendered.picture
        captions.append(rendered.captions)
    return captions


def batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Endless batches of indices below ``count``, every index once in a pass, in a new order each pass."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch_size + 1, batch_size):
            yield np.sort(order[start : start + batch_size])  # sorted: kinder to the mapped file
