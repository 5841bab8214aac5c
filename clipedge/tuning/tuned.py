"""What tuning changed in a prompt bank: the record that the bank's file keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LABEL_EMBEDDINGS", "TEMPLATES", "Tuned"]

TEMPLATES, LABEL_EMBEDDINGS = "templates", "label embeddings"


@dataclass(frozen=True)
class Tuned:
    """``kept`` says what was tuned: the choice of ``TEMPLATES``, the ``LABEL_EMBEDDINGS``, or both in this order.

    ``pictures`` is how many labelled pictures it was tuned on, ``accuracy`` the share of right answers before and
    after, on pictures that had no part in what answered them.
    """

    kept: tuple[str, ...]
    pictures: int
    accuracy: tuple[float, float]

    @classmethod
    def from_document(cls, document: Any) -> Tuned:
        """The record of parsed JSON. Raises ValueError or KeyError for what cannot be right."""
        if not isinstance(document, dict):
            raise ValueError(f"tuned: expected an object, found {document!r:.40}")
        kept, pictures, accuracy = document["kept"], document["pictures"], document["accuracy"]
        if kept not in ([TEMPLATES], [LABEL_EMBEDDINGS], [TEMPLATES, LABEL_EMBEDDINGS]):
            raise ValueError(f"tuned: expected {TEMPLATES!r}, {LABEL_EMBEDDINGS!r} or both, found {kept!r:.60}")
        if type(pictures) is not int or pictures < 1:
            raise ValueError(f"tuned: expected a number of pictures, found {pictures!r:.40}")
        if not isinstance(accuracy, list) or len(accuracy) != 2 or not all(map(_is_share, accuracy)):
            raise ValueError(f"tuned: expected two shares of right answers, found {accuracy!r:.40}")
        before, after = map(float, accuracy)
        return cls(tuple(kept), pictures, (before, after))


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]
