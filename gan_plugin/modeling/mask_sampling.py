"""From the logits and the annotations of a mask head to `MaskSamples`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Instances

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .matching import greedy_match, mask_iou
from .samples import MaskSamples

_ANTIALIASING = 4


@dataclass(frozen=True)
class MaskSampler:
    """Makes `MaskSamples`.

    Attributes:
        real: "binary" or "antialiased" truth for the discriminator.
        matching: "proposal" (every prediction is matched) or "greedy" (one to one, by score and mask IoU).
        match_iou: the least mask IoU of a greedy match.
    """

    real: str = "binary"
    matching: str = "proposal"
    match_iou: float = 0.5

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "MaskSampler | None":
        """The sampler that `cfg.MODEL.GAN` describes; None where nobody looks at masks.

        Raises:
            UserError: a key has an unknown value, or the model would not take the samples.
        """
        gan = cfg.MODEL.GAN
        architecture = cfg.MODEL.META_ARCHITECTURE
        if gan.ENABLED and not getattr(META_ARCH_REGISTRY.get(architecture), "takes_samples", False):
            raise UserError(
                f"MODEL.GAN.ENABLED is True, but MODEL.META_ARCHITECTURE is {architecture}, which has no "
                "discriminator; set it to AdversarialRCNN."
            )
        real = check_choice("MODEL.GAN.MASK.REAL", gan.MASK.REAL)
        matching = check_choice("MODEL.GAN.MASK.MATCHING", gan.MASK.MATCHING)
        return cls(real, matching, gan.MASK.MATCH_IOU) if gan.ENABLED and gan.MASK.ENABLED else None

    def __call__(
        self,
        logits: torch.Tensor,
        instances: list[Instances],
        crops: torch.Tensor,
        loss: torch.Tensor,
        output: torch.Tensor,
    ) -> MaskSamples:
        """
        Args:
            logits: (R, M, M) of the ground-truth class.
            instances: the foreground proposals with their annotations, one a image.
            crops: (R, M, M) binary truth in the proposals' boxes.
            loss, output: the head's own loss, and the logits that it was computed from.
        """
        with torch.no_grad():
            truth = crops.to(logits.dtype)
            if self.matching == "greedy":
                matched = greedy_match(instances, mask_iou(logits, truth), self.match_iou)
            else:
                matched = torch.ones(len(truth), dtype=torch.bool, device=logits.device)
            if self.real == "antialiased":
                fine = [crop_truth(image, logits.shape[-1] * _ANTIALIASING) for image in instances]
                truth = F.avg_pool2d(torch.cat(fine).to(logits.dtype)[:, None], _ANTIALIASING)[:, 0]
            rois = convert_boxes_to_pooler_format([image.proposal_boxes for image in instances])
        return MaskSamples(logits, truth, matched, classes_of(instances), rois, (), loss=loss, output=output)


class _PrecomputedCrops:
    """Stands in for `gt_masks`, so that `mask_rcnn_loss` uses the crops that the samples need as well."""

    def __init__(self, crops: torch.Tensor) -> None:
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        return self.crops


def crop_truth(image: Instances, side: int) -> torch.Tensor:
    """(R, side, side) bool: the annotated masks of one image's proposals, each in its proposal's box."""
    boxes = image.proposal_boxes.tensor
    if len(image) == 0:
        return torch.zeros(0, side, side, dtype=torch.bool, device=boxes.device)
    return image.gt_masks.crop_and_resize(boxes, side).to(boxes.device)


def with_truth(image: Instances, crops: torch.Tensor) -> Instances:
    """The same instances, whose masks are already cropped."""
    fields = {name: value for name, value in image.get_fields().items() if name != "gt_masks"}
    return Instances(image.image_size, **fields, gt_masks=_PrecomputedCrops(crops))


def classes_of(instances: list[Instances]) -> torch.Tensor:
    """(R,) ground-truth classes of all images."""
    return torch.cat([image.gt_classes for image in instances])


def logits_of_true_class(logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    """(R, C, M, M), C = 1 for class-agnostic masks, to (R, M, M)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(logits), device=logits.device), classes_of(instances)]
