"""A Mask R-CNN head that also hands out what it drew and what it should have drawn."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_loss
from detectron2.structures import Instances

from .mask_sampling import MaskSampler, crop_truth, logits_of_true_class, with_truth
from .samples import MASK_SAMPLES_KEY


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialMaskHead(MaskRCNNConvUpsampleHead):
    """Detectron2's mask head whose training losses are accompanied by `MaskSamples`.

    Parameters, `loss_mask` and inference are those of `MaskRCNNConvUpsampleHead`; with `MODEL.GAN.ENABLED: False` it
    is that head. AdversarialRCNN takes the samples out of the loss dictionary.
    """

    @configurable
    def __init__(self, input_shape: Any, *, sampler: MaskSampler | None = None, **kwargs: Any) -> None:
        """
        Args:
            input_shape: shape of the RoI features.
            sampler: makes `MaskSamples` in training; None for the plain head.
            kwargs: those of `MaskRCNNConvUpsampleHead`.
        """
        super().__init__(input_shape, **kwargs)
        self.sampler = sampler

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        return arguments | {"sampler": MaskSampler.from_config(cfg)}

    @property
    def emits_samples(self) -> bool:
        """Whether training returns `MaskSamples`."""
        return self.sampler is not None

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        """As `BaseMaskRCNNHead.forward`; in training also `MASK_SAMPLES_KEY: MaskSamples` if samples are wanted."""
        if not self.training or self.sampler is None:
            return super().forward(x, instances)
        logits = self.layers(x)
        with torch.no_grad():
            crops = [crop_truth(image, logits.shape[-1]) for image in instances]
        with_crops = [with_truth(image, crop) for image, crop in zip(instances, crops, strict=True)]
        loss = mask_rcnn_loss(logits, with_crops, self.vis_period) * self.loss_weight
        drawn = logits_of_true_class(logits, instances)
        samples = self.sampler(drawn, instances, torch.cat(crops), loss, logits)
        return {"loss_mask": loss, MASK_SAMPLES_KEY: samples}
