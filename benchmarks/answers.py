"""How right a contender's answers are: a fast wrong answer is no answer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def answer_quality(
    reference: npt.NDArray[np.floating], embeds: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]
) -> dict[str, float]:
    """Compare embeddings (N, D) with the reference's (N, D), and the answers among ``labels`` (L, D) that follow.

    ``centred_cosine`` is the median over pictures after the reference's mean embedding is taken away, without which
    all of a model's pictures look alike; ``same_label`` is the share of pictures that get the reference's label.
    """
    reference, embeds = (_unit(each) for each in (reference, embeds))
    mean = reference.mean(axis=0)
    cosines = (_unit(reference - mean) * _unit(embeds - mean)).sum(axis=1)
    same = (reference @ labels.T).argmax(axis=1) == (embeds @ labels.T).argmax(axis=1)
    return {"centred_cosine": round(float(np.median(cosines)), 5), "same_label": round(float(same.mean()), 4)}


def _unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
