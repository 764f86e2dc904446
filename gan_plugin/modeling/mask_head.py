"""A Mask R-CNN head that also hands out what it drew and what it should have drawn."""

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_loss
from detectron2.structures import Instances

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .matching import greedy_match, mask_iou
from .samples import SAMPLES_KEY, MaskSamples

_ANTIALIASING = 4


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialMaskHead(MaskRCNNConvUpsampleHead):
    """Detectron2's mask head whose training losses are accompanied by `MaskSamples`.

    Parameters, `loss_mask` and inference are those of `MaskRCNNConvUpsampleHead`; with `MODEL.GAN.ENABLED: False` it
    is that head. AdversarialRCNN takes the samples out of the loss dictionary.
    """

    @configurable
    def __init__(
        self,
        input_shape: Any,
        *,
        emit_samples: bool = False,
        real: str = "binary",
        matching: str = "proposal",
        match_iou: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: shape of the RoI features.
            emit_samples: whether training returns `MaskSamples` under `SAMPLES_KEY`.
            real: "binary" or "antialiased" truth for the discriminator.
            matching: "proposal" (every prediction is matched) or "greedy" (one to one, by score and mask IoU).
            match_iou: the least mask IoU of a greedy match.
            kwargs: those of `MaskRCNNConvUpsampleHead`.
        """
        super().__init__(input_shape, **kwargs)
        self.emit_samples = emit_samples
        self.real = real
        self.matching = matching
        self.match_iou = match_iou

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        gan = cfg.MODEL.GAN
        architecture = cfg.MODEL.META_ARCHITECTURE
        if gan.ENABLED and not getattr(META_ARCH_REGISTRY.get(architecture), "takes_mask_samples", False):
            raise UserError(
                f"MODEL.GAN.ENABLED is True, but MODEL.META_ARCHITECTURE is {architecture}, which has no "
                "discriminator; set it to AdversarialRCNN."
            )
        arguments.update(
            emit_samples=gan.ENABLED and gan.MASK.ENABLED,
            real=check_choice("MODEL.GAN.MASK.REAL", gan.MASK.REAL),
            matching=check_choice("MODEL.GAN.MASK.MATCHING", gan.MASK.MATCHING),
            match_iou=gan.MASK.MATCH_IOU,
        )
        return arguments

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        """As `BaseMaskRCNNHead.forward`; in training also `SAMPLES_KEY: MaskSamples` if samples are wanted."""
        if not (self.training and self.emit_samples):
            return super().forward(x, instances)
        logits = self.layers(x)
        with torch.no_grad():
            crops = [_crop_truth(image, logits.shape[-1]) for image in instances]
        with_crops = [_with_truth(image, crop) for image, crop in zip(instances, crops, strict=True)]
        loss = mask_rcnn_loss(logits, with_crops, self.vis_period) * self.loss_weight
        return {"loss_mask": loss, SAMPLES_KEY: self._samples(logits, instances, torch.cat(crops))}

    def _samples(self, logits: torch.Tensor, instances: list[Instances], crops: torch.Tensor) -> MaskSamples:
        class_logits = _logits_of_true_class(logits, instances)
        with torch.no_grad():
            truth = crops.to(logits.dtype)
            if self.matching == "greedy":
                matched = greedy_match(instances, mask_iou(class_logits, truth), self.match_iou)
            else:
                matched = torch.ones(len(truth), dtype=torch.bool, device=logits.device)
            if self.real == "antialiased":
                fine = [_crop_truth(image, logits.shape[-1] * _ANTIALIASING) for image in instances]
                truth = F.avg_pool2d(torch.cat(fine).to(logits.dtype)[:, None], _ANTIALIASING)[:, 0]
        return MaskSamples(class_logits, truth, matched)


class _PrecomputedCrops:
    """Stands in for `gt_masks`, so that `mask_rcnn_loss` uses the crops that the samples need as well."""

    def __init__(self, crops: torch.Tensor) -> None:
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        return self.crops


def _crop_truth(image: Instances, side: int) -> torch.Tensor:
    boxes = image.proposal_boxes.tensor
    if len(image) == 0:
        return torch.zeros(0, side, side, dtype=torch.bool, device=boxes.device)
    return image.gt_masks.crop_and_resize(boxes, side).to(boxes.device)


def _with_truth(image: Instances, crops: torch.Tensor) -> Instances:
    fields = {name: value for name, value in image.get_fields().items() if name != "gt_masks"}
    return Instances(image.image_size, **fields, gt_masks=_PrecomputedCrops(crops))


def _logits_of_true_class(logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    if logits.shape[1] == 1:
        return logits[:, 0]
    classes = torch.cat([image.gt_classes for image in instances])
    return logits[torch.arange(len(logits), device=logits.device), classes]
