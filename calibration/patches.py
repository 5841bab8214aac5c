"""The rows that a convolution multiplies: at each position of its output, the numbers under its kernel (im2col)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Patches"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Patches:
    """A kernel that moves over the maps ``tensor`` (batch, channels, height, width).

    ``kernel``, ``strides`` and ``dilations`` are (vertical, horizontal), ``pads`` (top, left, bottom, right) are of
    zeros; by default it is the position's own channels, and nothing around it.
    """

    tensor: str
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Positions of the kernel, (vertically, horizontally), on maps of a size."""
        sizes = (height + self.pads[0] + self.pads[2], width + self.pads[1] + self.pads[3])
        reach = [dilation * (kernel - 1) for dilation, kernel in zip(self.dilations, self.kernel, strict=True)]
        down, across = (
            (size - extent - 1) // stride + 1 for size, extent, stride in zip(sizes, reach, self.strides, strict=True)
        )
        return down, across

    def cut(self, maps: Floats, positions: npt.NDArray[np.intp]) -> Floats:
        """The patches of (B, C, H, W) maps at positions counted over (B, *grid): (positions, C * kernel's area)."""
        top, left, bottom, right = self.pads
        padded = np.pad(maps, ((0, 0), (0, 0), (top, bottom), (left, right))) if any(self.pads) else maps
        sample, down, across = np.unravel_index(positions, (len(maps), *self.grid(*maps.shape[2:])))
        rows = down[:, None] * self.strides[0] + np.arange(self.kernel[0]) * self.dilations[0]
        columns = across[:, None] * self.strides[1] + np.arange(self.kernel[1]) * self.dilations[1]
        cut = padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (positions, kh, kw, C)
        return np.ascontiguousarray(np.moveaxis(cut, 3, 1)).reshape(len(positions), -1)
