"""Which templates to ensemble, and how much each counts: greedy forward selection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clipedge.tuning.candidates import Candidate, LabelledEmbeds, mean_log_loss, normalised, right_answers

__all__ = ["template_path"]

ROUNDS = 8  # the more, the finer the weights; most of the gain is in the first few


def template_path(
    pictures: LabelledEmbeds, start: npt.NDArray[np.float64], text_embeds: npt.NDArray[np.float64]
) -> list[Candidate]:
    """``start`` left alone, then ensembles of 1, 2, ... ``ROUNDS`` templates, each one template more.

    Every round adds the template with which most of the ``pictures`` are answered right; of equally good ones that
    with the smallest log loss. A template may be added again and so counts more (Caruana et al. 2004, "Ensemble
    Selection from Libraries of Models"). ``text_embeds`` (R, templates, D) has the labels' texts in every template, and
    those of the negatives.
    """
    path, counts = [Candidate(start)], np.zeros(text_embeds.shape[1], np.int64)
    total = np.zeros_like(start)
    for _ in range(ROUNDS):
        ensembles = [normalised(total + text_embeds[:, template]) for template in range(len(counts))]
        hits = np.array([right_answers(pictures, rows).sum() for rows in ensembles])
        best = min(np.flatnonzero(hits == hits.max()), key=lambda place: mean_log_loss(pictures, ensembles[place]))
        total += text_embeds[:, best]
        counts[best] += 1
        path.append(Candidate(ensembles[best], tuple(counts.tolist())))
    return path
