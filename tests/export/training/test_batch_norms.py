"""What a tower learns without gradients: which modules learn it, when, and what parts of a batch do to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipedge.export.training.batch_norms import has_statistics, keep_statistics, kept_buffers, learn_statistics
from clipedge.export.training.contrast import infonce
from clipedge.export.training.gradients import embedding_gradients


@pytest.fixture
def tower() -> nn.Module:
    """(N, 3, 4, 4) float64 to (N, 6), with two BatchNorms and a dropout, as in use."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(20, 6)]
        return nn.Sequential(*parts, nn.BatchNorm1d(6)).double().eval()


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_only_norms_learn(tower: nn.Module) -> None:
    assert has_statistics(tower) and not has_statistics(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
    learn_statistics(tower)
    assert [type(module).__name__ for module in tower.modules() if module.training] == ["BatchNorm2d", "BatchNorm1d"]
    assert kept_buffers(tower).keys() == {
        f"{place}.{name}" for place in (1, 6) for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_what_is_looked_at_inside_is_not_learned(tower: nn.Module) -> None:
    learn_statistics(tower)
    pixels = draw(8, 3, 4, 4)
    before = {name: value.clone() for name, value in kept_buffers(tower).items()}
    with keep_statistics(tower):
        inside = tower(pixels).detach()
    assert all(torch.equal(value, before[name]) for name, value in kept_buffers(tower).items())
    torch.testing.assert_close(tower(pixels), inside, atol=0, rtol=0)  # by the batch, not by what was kept
    assert all(not torch.equal(value, before[name]) for name, value in kept_buffers(tower).items())


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_are_normalised_by_themselves_and_their_gradients_are_exact(parts: int, tower: nn.Module) -> None:
    """Against one graph of all parts, and statistics that are computed by hand: each part is learned once."""
    learn_statistics(tower)
    pixels, texts = draw(12, 3, 4, 4), nn.functional.normalize(draw(12, 6, seed=2), dim=-1)
    loss = embedding_gradients(tower, pixels, lambda images: infonce(images, texts, 5.0), parts)
    found = [weight.grad for weight in tower.parameters()]
    statistics = {name: value.clone() for name, value in kept_buffers(tower).items()}
    tower.zero_grad()
    with keep_statistics(tower):
        embeds = torch.cat([tower(piece) for piece in pixels.tensor_split(parts)])
        expected = infonce(embeds, texts, 5.0)
        wanted = torch.autograd.grad(expected, list(tower.parameters()))
    assert loss == pytest.approx(expected.item(), abs=1e-12)
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-12, rtol=1e-9)
    mean = torch.zeros(5, dtype=torch.float64)
    for piece in pixels.tensor_split(parts):
        mean = 0.9 * mean + 0.1 * tower[0](piece).mean(dim=(0, 2, 3))  # type: ignore[index]
    torch.testing.assert_close(statistics["1.running_mean"], mean.detach(), atol=1e-12, rtol=0)
    assert int(statistics["1.num_batches_tracked"]) == parts
