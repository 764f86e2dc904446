"""PointRend's masks for a discriminator, which wants a grid where PointRend has points."""

from typing import Any

import torch
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.projects.point_rend.mask_head import PointRendMaskHead
from detectron2.projects.point_rend.point_features import generate_regular_grid_point_coords
from detectron2.structures import Instances

# The discriminator sees the point head on a grid so many times finer than the coarse head's.
_REFINEMENT = 4


def dense_logits(
    head: Any, features: dict[str, torch.Tensor], instances: list[Instances], coarse: torch.Tensor
) -> torch.Tensor:
    """(R, C, M, M) logits of a PointRendMaskHead on a regular grid over each box.

    PointRend trains on scattered points. A discriminator gets the point head's answers on the grid that inference
    starts from, 28x28 with the usual coarse 7x7 (the coarse head's own where the point head is off).

    Args:
        head: the mask head.
        features: what it was given.
        instances: the foreground proposals, one a image.
        coarse: (R, C, m, m), what its coarse head has drawn of them.
    """
    if not head.mask_point_on:
        return coarse
    side = coarse.shape[-1] * _REFINEMENT
    points = generate_regular_grid_point_coords(len(coarse), side, coarse.device)
    fine = head._point_pooler(features, [image.proposal_boxes for image in instances], points)
    logits = head._get_point_logits(fine, points, coarse)
    return logits.view(len(logits), logits.shape[1], side, side)


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialPointRendMaskHead(PointRendMaskHead):
    """PointRendMaskHead, which however fails in training where no image of a batch has an instance; here the losses
    are zeros then, which reach every parameter."""

    def forward(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """As PointRendMaskHead.forward."""
        if not self.training or any(len(image) for image in instances):
            return super().forward(features, instances)
        coarse = self.coarse_head(self._roi_pooler(features, [image.proposal_boxes for image in instances]))
        losses = {"loss_mask": coarse.sum() * 0}
        if self.mask_point_on:
            losses["loss_mask_point"] = dense_logits(self, features, instances, coarse).sum() * 0
        return losses
