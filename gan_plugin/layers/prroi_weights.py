"""The weights of Precise RoI pooling along one axis: the mean of each cell's hat function over each bin.

All in double precision: weights of narrow bins are small differences of large numbers.
"""

from typing import NamedTuple

import torch
from torch import nn

# Narrower bins, in cells, count as empty: their gradient would be rounding noise even in double precision.
MIN_BIN_WIDTH = 1e-9


def bin_edges(low: torch.Tensor, high: torch.Tensor, bins: int) -> torch.Tensor:
    """(R,) box sides to (R, bins + 1) edges; an inverted box gets bins of width 0."""
    fractions = torch.arange(bins + 1, dtype=low.dtype, device=low.device) / bins
    return low[:, None] + (high - low).clamp(min=0)[:, None] * fractions


def windows(edges: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First cell and number of cells (R,) along an axis of `size` cells whose hat functions reach the box."""
    ends = torch.stack([edges[:, 0].floor(), edges[:, -1].ceil()]).nan_to_num(0).clamp(0, size - 1).long()
    return ends[0], ends[1] - ends[0] + 1


class Axis(NamedTuple):
    """The share of each cell of a window in each bin, along one axis; all (R, bins, cells) or (R, bins, 1)."""

    weights: torch.Tensor
    hat: torch.Tensor  # the hat function at the edges, (R, bins + 1, cells)
    inverse_width: torch.Tensor  # 0 for a bin without width

    @classmethod
    def of(cls, edges: torch.Tensor, cells: torch.Tensor) -> "Axis":
        """Edges (R, bins + 1) and the positions of the cells (R, cells), both in cells."""
        offset = (edges[:, :, None] - cells[:, None, :]).clamp(-1, 1).nan_to_num()
        hat = 1 - offset.abs()
        # The integral of the hat function from -inf to offset is 1/2 + offset - offset |offset| / 2; 1/2 cancels.
        integral = offset * (1 + hat) / 2
        width = edges.diff(dim=1)[:, :, None]
        inverse_width = torch.where((width > MIN_BIN_WIDTH) & width.isfinite(), 1 / width, 0)
        return cls(integral.diff(dim=1) * inverse_width, hat, inverse_width)

    def slopes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives (R, bins, cells) of the weights with respect to their bin's lower and upper edge."""
        lower = (self.weights - self.hat[:, :-1]) * self.inverse_width
        return lower, (self.hat[:, 1:] - self.weights) * self.inverse_width

    def edge_gradient(self, grad_weights: torch.Tensor) -> torch.Tensor:
        """Chain the gradient of the weights to the edges: (R, bins, cells) to (R, bins + 1)."""
        lower, upper = ((grad_weights * slope).sum(2) for slope in self.slopes())
        return join_edges(lower, upper)


def join_edges(lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Add up gradients (R, bins) of the bins' lower and upper edges: neighbours share an edge; (R, bins + 1)."""
    return nn.functional.pad(lower, (0, 1)) + nn.functional.pad(upper, (1, 0))
