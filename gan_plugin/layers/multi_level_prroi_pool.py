"""Precise RoI pooling over the levels of a feature pyramid."""

from collections.abc import Sequence

import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import nn

from .prroi_pool import prroi_pool

# Lin et al. 2017, arXiv 1612.03144, eq 1: a box of 224 pixels belongs to level 4, the one of stride 16.
_CANONICAL_SIZE = 224
_CANONICAL_LEVEL = 4


class MultiLevelPrRoIPool(nn.Module):
    """Pools each box from the level that suits its size, or from all of them.

    Gradients reach the features, and the boxes through the pooling alone, never through the choice of a level.
    """

    def __init__(self, output_size: int, scales: Sequence[float], assignment: str = "level") -> None:
        """
        Args:
            output_size: bins on either side.
            scales: cells per pixel of every level, such as 1/4, 1/8, 1/16, the finest first.
            assignment: "level" for one level per box; "max" for the maximum over all of them, element by element
                (adaptive pooling; Liu et al. 2018, arXiv 1803.01534, section 3.2; Le et al. 2020's code).
        """
        super().__init__()
        self.output_size = output_size
        self.scales = tuple(scales)
        self.assignment = assignment

    def forward(self, features: Sequence[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
        """Levels (N, C, H_i, W_i), as many as scales, and (R, 5) boxes [image, x0, y0, x1, y1] to (R, C, S, S)."""
        levels = list(zip(features, self.scales, strict=True))
        if self.assignment == "max" or len(levels) == 1:
            pooled = [prroi_pool(feature, boxes, self.output_size, scale) for feature, scale in levels]
            return torch.stack(pooled).amax(dim=0)
        level_of = self._levels_of(boxes.detach()[:, 1:])
        owns = [torch.nonzero(level_of == index).flatten() for index in range(len(levels))]
        # Also from levels without boxes: every process of a distributed run takes the same path.
        pooled = [
            prroi_pool(feature, boxes[own], self.output_size, scale)
            for own, (feature, scale) in zip(owns, levels, strict=True)
        ]
        return torch.cat(pooled).index_select(0, torch.cat(owns).argsort())

    def _levels_of(self, boxes: torch.Tensor) -> torch.Tensor:
        first, last = (round(-torch.tensor(scale).log2().item()) for scale in (self.scales[0], self.scales[-1]))
        return assign_boxes_to_levels([Boxes(boxes)], first, last, _CANONICAL_SIZE, _CANONICAL_LEVEL)
