"""PointRend's mask head under the eyes of a discriminator."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.projects.point_rend.mask_head import PointRendMaskHead
from detectron2.projects.point_rend.point_features import generate_regular_grid_point_coords
from detectron2.structures import Instances

from .mask_sampling import MaskSampler, crop_truth, logits_of_true_class
from .samples import MASK_SAMPLES_KEY, MaskSamples

# The discriminator sees the point head on a grid so many times finer than the coarse head's.
_REFINEMENT = 4


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialPointRendMaskHead(PointRendMaskHead):
    """PointRendMaskHead whose training losses are accompanied by `MaskSamples`.

    PointRend trains on scattered points; a discriminator needs a mask. It gets the point head's answers on a regular
    grid over the box, 28x28 with the usual coarse 7x7 (the coarse head's own where the point head is off), which is
    what inference starts from. Parameters, losses and inference are those of PointRendMaskHead, which however fails in
    training where no image of a batch has an instance; here the losses are 0 then.
    """

    def __init__(self, cfg: CfgNode, input_shape: Any) -> None:
        """
        Args:
            cfg: with the plugin's and PointRend's keys.
            input_shape: shapes of the feature maps, by name.
        """
        super().__init__(cfg, input_shape)
        self.sampler = MaskSampler.from_config(cfg)

    @property
    def emits_samples(self) -> bool:
        """Whether training returns `MaskSamples`."""
        return self.sampler is not None

    def forward(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        """As PointRendMaskHead.forward; in training also `MASK_SAMPLES_KEY: MaskSamples` if samples are wanted."""
        if not self.training:
            return super().forward(features, instances)
        if not any(len(image) for image in instances):
            return self._without_instances(features, instances)
        if self.sampler is None:
            return super().forward(features, instances)
        kept: list[torch.Tensor] = []
        # Coarse mask and point logits are needed a second time, and the head does not hand them out.
        heads = [self.coarse_head, self.point_head] if self.mask_point_on else [self.coarse_head]
        handles = [head.register_forward_hook(lambda module, inputs, output: kept.append(output)) for head in heads]
        try:
            losses = super().forward(features, instances)
        finally:
            for handle in handles:
                handle.remove()
        dense = self._dense_logits(features, instances, kept[0])
        return losses | self._samples(self.sampler, dense, instances, losses, kept[-1])

    def _without_instances(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> dict[str, Any]:
        """Zeros that reach every parameter; PointRendMaskHead cannot sample points of no mask."""
        coarse = self.coarse_head(self._roi_pooler(features, [image.proposal_boxes for image in instances]))
        dense = self._dense_logits(features, instances, coarse)
        losses = {"loss_mask": coarse.sum() * 0}
        if self.mask_point_on:
            losses["loss_mask_point"] = dense.sum() * 0
        return losses | (self._samples(self.sampler, dense, instances, losses, dense) if self.sampler else {})

    def _samples(
        self,
        sampler: MaskSampler,
        dense: torch.Tensor,
        instances: list[Instances],
        losses: dict[str, torch.Tensor],
        output: torch.Tensor,
    ) -> dict[str, MaskSamples]:
        drawn = logits_of_true_class(dense, instances)
        with torch.no_grad():
            crops = torch.cat([crop_truth(image, drawn.shape[-1]) for image in instances])
        loss = losses["loss_mask_point" if self.mask_point_on else "loss_mask"]
        return {MASK_SAMPLES_KEY: sampler(drawn, instances, crops, loss, output)}

    def _dense_logits(
        self, features: dict[str, torch.Tensor], instances: list[Instances], coarse: torch.Tensor
    ) -> torch.Tensor:
        """(R, C, M, M) logits on a regular grid over each box."""
        if not self.mask_point_on:
            return coarse
        side = coarse.shape[-1] * _REFINEMENT
        points = generate_regular_grid_point_coords(len(coarse), side, coarse.device)
        fine = self._point_pooler(features, [image.proposal_boxes for image in instances], points)
        logits = self._get_point_logits(fine, points, coarse)
        return logits.view(len(logits), logits.shape[1], side, side)
