"""Vectors to search, queries, and the true answers, as files. numpy only: both environments import it.

Of D = 512 numbers, a vector is the sum of a direction that all share (one of whose numbers is twelve times the others'
spread, as CLIP's outlier channels are), of one of N / 50 cluster centres, and of noise, scaled to unit length. Two of
them have a mean cosine of 0.83. Centres and noise do not fill all directions equally: the k-th principal component has
a variance in proportion to 1 / k, a power law as learned representations have it (Stringer et al. 2019 found it in
visual cortex, Agrawal et al. 2022 in networks trained without labels), which makes about 28 effective dimensions.
Without it, clusters lie in no order in which a graph could look for them. "Pictures" are queries drawn in the same way,
from the same clusters; "texts" share another direction instead, so that all of their cosines are low, as between the
towers of a CLIP. The truth is float32 search through all vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIM, TOP, BLOCK = 512, 10, 10_000
KINDS = ("pictures", "texts")
Vectors = NDArray[np.float32]


def draw(count: int, clusters: int, seed: int, texts: bool = False) -> Vectors:
    """(count, 512) unit vectors, as the docstring of this file says."""
    fixed = np.random.default_rng(0)
    shared, gap = fixed.normal(size=DIM), fixed.normal(size=DIM)
    shared[7] = 12
    variances = 1 / np.arange(1, DIM + 1)
    axes = np.linalg.qr(fixed.normal(size=(DIM, DIM)))[0] * np.sqrt(variances / variances.sum())
    centres = np.random.default_rng(1).normal(size=(clusters, DIM)).astype(np.float32)
    generator = np.random.default_rng([2, seed])
    common = 1.5 * gap / np.linalg.norm(gap) if texts else 2.1 * shared / np.linalg.norm(shared)
    noise = generator.normal(size=(count, DIM))
    vectors = common + (0.75 * centres[generator.integers(0, clusters, count)] + 0.6 * noise) @ axes.T
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_data(folder: Path, count: int, queries: int) -> None:
    """Write ``vectors.npy`` (count, 512), and ``KIND.npy`` (queries, 512) and ``KIND-truth.npy`` (queries, 10)."""
    clusters = max(count // 50, 1)
    asked = np.concatenate([draw(queries, clusters, count + 1, kind == "texts") for kind in KINDS])
    scores, rows = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (count, DIM))
    for start in range(0, count, BLOCK):
        block = draw(min(BLOCK, count - start), clusters, start)
        vectors[start : start + len(block)] = block
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(asked), len(block)))
        scores, rows = np.hstack([scores, asked @ block.T]), np.hstack([rows, numbers])
        best = np.argpartition(-scores, min(TOP, scores.shape[1]) - 1, axis=1)[:, :TOP]
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    vectors.flush()
    for place, kind in enumerate(KINDS):
        piece = slice(place * queries, (place + 1) * queries)
        np.save(folder / f"{kind}.npy", asked[piece])
        np.save(folder / f"{kind}-truth.npy", rows[piece])


def mean_cosine(folder: Path) -> float:
    """Of 200 vectors with 200 others, drawn from all."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    first, second = np.split(vectors[np.random.default_rng(5).choice(len(vectors), 400, replace=False)], 2)
    return float((first @ second.T).mean())
