"""Vectors to search, queries, and the true answers, as files. numpy only: both environments import it.

They are drawn, not computed from pictures, but so that they are clustered as a CLIP's embeddings of a collection of
photographs are, at several scales: a collection has topics, of which there are scenes, of which there are bursts (near
duplicates), of which there are pictures. A picture's vector of 512 numbers is a sum of independent parts, scaled to
unit length; their shares of the squared length are in PICTURE. So two pictures have a mean cosine of 0.60, of one topic
0.74, of one scene 0.84, of one burst 0.93. What all share is one direction, one of whose numbers is twelve times the
others' spread, as CLIP's outlier channels are. Every other part is normal, and does not fill all directions equally:
the k-th principal component has a variance in proportion to 1 / k, a power law as learned representations have it
(Stringer et al. 2019 found it in visual cortex, Agrawal et al. 2022 in networks trained without labels), which makes
about 28 effective dimensions. The sizes of topics, scenes and bursts are log-normal: few are large, most are small.

"Pictures" are queries of the same distribution, held out. "Texts" are captions of held-out pictures: a direction that
all texts share and no picture has (the gap between the towers, Liang et al. 2022), some of the topic's and the scene's
own parts, and a part of their own; shares in TEXT. A text has a mean cosine of 0.1 with any picture, 0.2 with one of
its topic, 0.25 with one of its scene, and 0.3 to 0.4 with the nearest ten. The truth is float32 search through all
vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIM, TOP, BLOCK = 512, 10, 10_000
KINDS = ("pictures", "texts")
PER_TOPIC, PER_SCENE, PER_BURST = 1000, 100, 5  # pictures, on average
PICTURE = {"shared": 0.60, "topic": 0.14, "scene": 0.10, "burst": 0.09, "own": 0.07}
TEXT = {"shared": 0.0375, "gap": 0.6625, "topic": 0.08, "scene": 0.02, "own": 0.20}
SIZES_SIGMA = 1.0  # of the logarithm of a group's size
Vectors = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Collection:
    """``topics``, ``scenes`` and ``bursts`` are (groups, 512), their own parts at a mean squared length of 1.

    ``topic_of`` each scene, ``scene_of`` each burst, and ``weights`` of the bursts, by which pictures fall to them.
    """

    axes: Vectors
    shared: Vectors
    gap: Vectors
    topics: Vectors
    scenes: Vectors
    bursts: Vectors
    topic_of: Numbers
    scene_of: Numbers
    weights: NDArray[np.float64]


def make_collection(count: int) -> Collection:
    """What the pictures of a collection of ``count`` are drawn from."""
    generator = np.random.default_rng([0, count])
    shared, gap = generator.normal(size=(2, DIM))
    shared[7] = 12
    variances = 1 / np.arange(1, DIM + 1)
    rotation = np.linalg.qr(generator.normal(size=(DIM, DIM)))[0]
    axes = np.asarray((rotation * np.sqrt(variances / variances.sum())).T, np.float32)
    groups = [max(count // size, 1) for size in (PER_TOPIC, PER_SCENE, PER_BURST)]
    topics, scenes, bursts = (spread(generator, axes, number) for number in groups)
    weights = [np.exp(SIZES_SIGMA * generator.normal(size=number)) for number in groups]
    return Collection(
        axes,
        np.asarray(shared / np.linalg.norm(shared), np.float32),
        np.asarray(gap / np.linalg.norm(gap), np.float32),
        topics,
        scenes,
        bursts,
        generator.choice(groups[0], groups[1], p=weights[0] / weights[0].sum()),
        generator.choice(groups[1], groups[2], p=weights[1] / weights[1].sum()),
        weights[2] / weights[2].sum(),
    )


def spread(generator: np.random.Generator, axes: Vectors, count: int) -> Vectors:
    """(count, 512) normal, along ``axes``."""
    return generator.standard_normal((count, DIM), np.float32) @ axes


def draw(collection: Collection, count: int, seed: int, texts: bool = False) -> Vectors:
    """(count, 512) unit vectors: pictures, or texts about some."""
    generator = np.random.default_rng([1, seed])
    burst = generator.choice(len(collection.bursts), count, p=collection.weights)
    scene = collection.scene_of[burst]
    topic = collection.topic_of[scene]
    part = {name: np.float32(share**0.5) for name, share in (TEXT if texts else PICTURE).items()}
    vectors = part["own"] * spread(generator, collection.axes, count) + part["shared"] * collection.shared
    vectors += part["topic"] * collection.topics[topic] + part["scene"] * collection.scenes[scene]
    vectors += part["gap"] * collection.gap if texts else part["burst"] * collection.bursts[burst]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_data(folder: Path, count: int, queries: int) -> None:
    """Write ``vectors.npy`` (count, 512), and ``KIND.npy`` (queries, 512) and ``KIND-truth.npy`` (queries, 10)."""
    collection = make_collection(count)
    asked = np.concatenate([draw(collection, queries, count + 1, kind == "texts") for kind in KINDS])
    scores, rows = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.int64)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (count, DIM))
    for start in range(0, count, BLOCK):
        block = draw(collection, min(BLOCK, count - start), start)
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
