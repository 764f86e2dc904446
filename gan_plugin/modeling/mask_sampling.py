"""From the logits and the annotations of a mask head to `MaskSamples`."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Instances

from gan_plugin.config import check_choice

from .masks_of_some import has_mask
from .matching import greedy_match, mask_iou
from .mean_teacher import taught_masks
from .samples import MaskSamples

_ANTIALIASING = 4
# the least and the greatest side of a query's mask in pixels
_SIDES = (28, 128)


@dataclass(frozen=True)
class MaskSampler:
    """Makes `MaskSamples`.

    Attributes:
        real: "binary" or "antialiased" truth for the discriminator.
        matching: "proposal" (every prediction is matched) or "greedy" (one to one, by score and mask IoU).
        match_iou: the least mask IoU of a greedy match.
        logits: the layer that draws the logits, such as "mask_head.predictor"; "" for the one that looks like it.
        box_only: whether some objects have no mask, and their box in its place.
        has_teacher: whether a mean teacher has drawn theirs.
        margin, side: of a query's mask, which is cut to its object's box: by which part of its side the box is widened
            on each side, and to how many pixels it is brought.
    """

    real: str = "binary"
    matching: str = "proposal"
    match_iou: float = 0.5
    logits: str = ""
    margin: float = 0.0
    side: int = 28
    box_only: bool = False
    has_teacher: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "MaskSampler":
        """The sampler that `cfg.MODEL.GAN.MASK` describes.

        Raises:
            UserError: a key has an unknown value.
        """
        mask = cfg.MODEL.GAN.MASK
        real = check_choice("MODEL.GAN.MASK.REAL", mask.REAL)
        matching = check_choice("MODEL.GAN.MASK.MATCHING", mask.MATCHING)
        side = min(max(mask.INPUT_SIZE, _SIDES[0]), _SIDES[1])
        return cls(
            real,
            matching,
            mask.MATCH_IOU,
            mask.LOGITS,
            mask.MARGIN,
            side,
            mask.BOX_ONLY,
            bool(cfg.MODEL.GAN.UNPAIRED.TEACHER_WEIGHT),
        )

    def __call__(
        self,
        logits: torch.Tensor,
        instances: list[Instances],
        crops: torch.Tensor,
        loss: torch.Tensor,
        output: torch.Tensor,
        features: tuple[torch.Tensor, ...] = (),
    ) -> MaskSamples:
        """
        Args:
            logits: (R, M, M) of the ground-truth class.
            instances: the foreground proposals with their annotations, one a image.
            crops: (R, M, M) binary truth in the proposals' boxes.
            loss, output: the model's own losses, and the logits that they were computed from.
            features: see `MaskSamples`.
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
            known = torch.cat([has_mask(image) for image in instances]) if self.box_only else None
            side = logits.shape[-1]
            taught = torch.cat([taught_masks(image, side) for image in instances]) if self.has_teacher else None
            matched = matched if known is None else matched & known
        classes = classes_of(instances)
        seen = features, loss, output
        return MaskSamples(logits, truth, matched, classes, rois, *seen, has_mask=known, taught=taught)


def crop_truth(image: Instances, side: int) -> torch.Tensor:
    """(R, side, side) bool: the annotated masks of one image's proposals, each in its proposal's box."""
    boxes = image.proposal_boxes.tensor
    if len(image) == 0:
        return torch.zeros(0, side, side, dtype=torch.bool, device=boxes.device)
    return image.gt_masks.crop_and_resize(boxes, side).to(boxes.device)


def classes_of(instances: list[Instances]) -> torch.Tensor:
    """(R,) ground-truth classes of all images."""
    return torch.cat([image.gt_classes for image in instances])


def logits_of_true_class(logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    """(R, C, M, M), C = 1 for class-agnostic masks, to (R, M, M)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(logits), device=logits.device), classes_of(instances)]
