"""From a record to a model input: the slides' random crop (section 6) and mini-masks (section 1)."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.structures import BitMasks, Instances

from gan_plugin.data.mappers import CheckedDatasetMapper, mapper_class

Mapper = Callable[[dict[str, Any]], Any]
# of a mini-mask in pixels
SIDE = 56


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
            squeezed = np.stack([round_trip(mask, self.side) for mask in full])
            instances.gt_masks = BitMasks(torch.from_numpy(squeezed))
        return mapped


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tightest (x0, y0, x1, y1) around a (H, W) mask in pixels, x1 and y1 exclusive; zeros for an empty mask."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + w, y + h


def encode(mask: np.ndarray, box: Sequence[int] | None = None, side: int = SIDE) -> np.ndarray:
    """Cut `mask` out by its box and squeeze it into a square.

    Args:
        mask: (H, W) bool.
        box: x0, y0, x1, y1; by default the mask's own.
        side: of the square in pixels.

    Returns:
        (side, side) bool: whether at least half of what falls on a pixel is inside. All False for an empty box.
    """
    x0, y0, x1, y1 = box if box is not None else mask_box(mask)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((side, side), bool)
    cut = mask[y0:y1, x0:x1].astype(np.float32)
    # areas are averaged where they shrink; interpolation alone would look at four pixels and lose thin parts
    shrinks = cut.shape[0] > side or cut.shape[1] > side
    resized = cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized >= 0.5


def decode(mini: np.ndarray, box: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """The inverse of `encode`, up to what the square could not hold.

    Args:
        mini: (side, side) bool.
        box: x0, y0, x1, y1 within the image.
        shape: height and width of the image.

    Returns:
        (H, W) bool.
    """
    mask = np.zeros(shape, bool)
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return mask
    size = (x1 - x0, y1 - y0)
    mask[y0:y1, x0:x1] = cv2.resize(mini.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) >= 0.5
    return mask


def round_trip(mask: np.ndarray, side: int = SIDE) -> np.ndarray:
    """(H, W) bool: what is left of a mask after `encode` and `decode`."""
    box = mask_box(mask)
    return decode(encode(mask, box, side), box, (mask.shape[0], mask.shape[1]))


class PercentCrop(T.Augmentation):
    """With a probability cut a random share off each side and resize what is left to the size before.

    Every share is uniform in [0, `share`], so the centre stays as long as `share` is below 0.5. Four independent shares
    change the aspect ratio, of which the slides complain; with `keep_aspect` left and right together lose the same
    share as top and bottom together.
    """

    def __init__(self, prob: float = 0.5, share: float = 0.2, keep_aspect: bool = False) -> None:
        """
        Args:
            prob: of a crop, in [0, 1].
            share: in [0, 0.5).
            keep_aspect: whether width and height shrink alike.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        left, right, top, bottom = self._shares()
        x, y = round(left * width), round(top * height)
        kept = max(1, round((1 - left - right) * width)), max(1, round((1 - top - bottom) * height))
        crop = T.CropTransform(x, y, min(kept[0], width - x), min(kept[1], height - y), width, height)
        return T.TransformList([crop, T.ResizeTransform(crop.h, crop.w, height, width)])

    def _shares(self) -> tuple[float, float, float, float]:
        left, right = self._rand_range(0.0, self.share), self._rand_range(0.0, self.share)
        if not self.keep_aspect:
            return left, right, self._rand_range(0.0, self.share), self._rand_range(0.0, self.share)
        both = left + right
        top = self._rand_range(max(0.0, both - self.share), min(self.share, both))
        return left, right, top, both - top
