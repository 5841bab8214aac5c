"""Patches against torch's own im2col."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipedge.calibration.patches import Patches

GEOMETRIES = {
    "pointwise": Patches("x"),
    "dense": Patches("x", (3, 3), pads=(1, 1, 1, 1)),
    "strided": Patches("x", (3, 3), (2, 2), (1, 1, 1, 1)),
    "unpadded": Patches("x", (3, 3)),
    "oblong": Patches("x", (2, 5), (1, 3), (0, 2, 0, 2)),
    "dilated": Patches("x", (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    "uneven padding": Patches("x", (3, 2), (2, 1), (0, 1, 1, 0)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_patches_are_what_the_kernel_covers_at_each_position(name: str) -> None:
    patches = GEOMETRIES[name]
    maps = np.random.default_rng(0).normal(size=(3, 4, 9, 11)).astype(np.float32)
    top, left, bottom, right = patches.pads
    padded = torch.nn.functional.pad(torch.from_numpy(maps), (left, right, top, bottom))
    unfolded = torch.nn.functional.unfold(padded, patches.kernel, patches.dilations, stride=patches.strides)
    expected = unfolded.movedim(1, 2).reshape(-1, unfolded.shape[1]).numpy()
    assert len(expected) == 3 * np.prod(patches.grid(9, 11))
    positions = np.random.default_rng(1).permutation(len(expected))
    np.testing.assert_array_equal(patches.cut(maps, positions), expected[positions])
