"""Gradients of a whole batch's loss, made in parts; by several processes: test_processes.py."""

from __future__ import annotations

import pytest
import torch

from clipedge.export.training.contrast import infonce
from clipedge.export.training.gradients import embedding_gradients


def tower() -> torch.nn.Module:
    """(N, 4, 4, 3) to (N, 8), in float64."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(48, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8)
    ).double()


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(parts: int) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (7, 4, 4, 3), generator=generator).double() / 255
    texts = torch.nn.functional.normalize(torch.randn(7, 8, generator=generator, dtype=torch.float64), dim=-1)
    whole = tower()
    expected = infonce(whole(pixels), texts, 2.0)
    expected.backward()  # type: ignore[no-untyped-call]
    for count in (1, parts):
        pieces = tower()
        loss = embedding_gradients(pieces, pixels, lambda images: infonce(images, texts, 2.0), count)
        assert loss == pytest.approx(expected.item(), abs=1e-12)
        for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, atol=1e-12, rtol=1e-9)
