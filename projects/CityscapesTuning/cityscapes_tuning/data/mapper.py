"""From a record to a model input, with the augmentation and the masks that a study asks for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.structures import BitMasks, Instances

from gan_plugin.data.box_only import mapper_class
from gan_plugin.data.checks import CheckedDatasetMapper

from . import mini_mask
from .crop import PercentCrop

Mapper = Callable[[dict[str, Any]], Any]


def training_mapper(cfg: CfgNode) -> Mapper:
    """Resize, flip and crop as INPUT and TUNING.CROP say; boxes are made anew from the masks."""
    crop = cfg.TUNING.CROP
    augmentations = build_augmentation(cfg, is_train=True)
    if crop.PROB > 0:
        augmentations.append(PercentCrop(crop.PROB, crop.SHARE, crop.KEEP_ASPECT))
    return _mapper(cfg, augmentations)


def validation_mapper(cfg: CfgNode) -> Mapper:
    """The images as at test time, with their truth, so that losses can be measured; nothing is random."""
    size = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
    return _mapper(cfg, [size] if cfg.INPUT.MIN_SIZE_TEST else [])


def _mapper(cfg: CfgNode, augmentations: list[Any]) -> Mapper:
    plain = mapper_class(cfg)(
        is_train=True,
        augmentations=augmentations,
        image_format=cfg.INPUT.FORMAT,
        use_instance_mask=cfg.MODEL.MASK_ON,
        instance_mask_format=cfg.INPUT.MASK_FORMAT,
        recompute_boxes=cfg.MODEL.MASK_ON,
    )
    checked = CheckedDatasetMapper(plain)
    return MiniMasks(checked, cfg.TUNING.MINI_MASK) if cfg.TUNING.MINI_MASK else checked


class MiniMasks:
    """Squeezes every mask of a mapped record through a mini-mask; boxes stay those of the full masks.

    The slides store 56x56 masks to save memory in training and validation, and so learn from what such a mask holds.
    """

    def __init__(self, mapper: Mapper, side: int) -> None:
        """
        Args:
            mapper: gives instances with `gt_masks` as BitMasks.
            side: of the mini-masks in pixels.
        """
        self.mapper = mapper
        self.side = side

    def __call__(self, record: dict[str, Any]) -> Any:
        mapped = self.mapper(record)
        instances = mapped.get("instances") if mapped is not None else None
        if isinstance(instances, Instances) and len(instances):
            full = instances.gt_masks.tensor.numpy()
            squeezed = np.stack([mini_mask.round_trip(mask, self.side) for mask in full])
            instances.gt_masks = BitMasks(torch.from_numpy(squeezed))
        return mapped
