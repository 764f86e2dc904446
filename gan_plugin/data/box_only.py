"""Boxes for all objects, masks for some: records without masks, and their way through Detectron2's mapper."""

import copy
import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.structures import BoxMode

Record = dict[str, Any]
# below it Detectron2 calls a box empty
_LEAST_SIDE = 1e-5
_logger = logging.getLogger(__name__)


def has_mask(annotation: Record) -> bool:
    """Whether an object has a mask: `segmentation` is there and not empty.

    Args:
        annotation: of Detectron2's standard format or of a COCO JSON.
    """
    mask = annotation.get("segmentation")
    if isinstance(mask, list | tuple):
        return any(not isinstance(part, list | tuple | np.ndarray) or len(part) > 0 for part in mask)
    # an array has no truth value
    return mask is not None and mask != {} if not isinstance(mask, np.ndarray) else mask.size > 0


def box_as_polygon(annotation: Record) -> list[list[float]]:
    """The box of an object as a polygon of its corners in pixels, which stands in for its mask."""
    x0, y0, x1, y1 = (float(side) for side in _corners(annotation))
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def _corners(annotation: Record) -> Sequence[float]:
    return BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)


def keep_masks(records: Sequence[Record], share: float, seed: int) -> list[Record]:
    """Take the masks away from all but a share of the images; boxes and classes stay.

    Args:
        records: in Detectron2's standard format; they are not changed.
        share: in [0, 1] of the images that have masks, rounded, but one of them at least where it is above 0.
        seed: of the draw, which depends on nothing but it and the set of file names; what a smaller share keeps, a
            larger one keeps as well.
    """
    names = sorted({record["file_name"] for record in records if _objects_with_mask(record)})
    random.Random(seed).shuffle(names)
    kept = set(names[: max(round(share * len(names)), int(share > 0))])
    objects = [record["file_name"] in kept for record in records for _ in _objects_with_mask(record)]
    _logger.info(
        f"DATASETS.MASK_SHARE {share}: {len(kept)} of {len(names)} images, with {sum(objects)} of {len(objects)} "
        "objects, keep their masks."
    )
    return [record if record["file_name"] in kept else _without_masks(record) for record in records]


def _objects_with_mask(record: Record) -> list[Record]:
    return [one for one in record.get("annotations", ()) if not one.get("iscrowd", 0) and has_mask(one)]


def _without_masks(record: Record) -> Record:
    bare = copy.copy(record)
    if "annotations" in record:
        bare["annotations"] = [
            one if one.get("iscrowd", 0) else {key: value for key, value in one.items() if key != "segmentation"}
            for one in record["annotations"]
        ]
    return bare


class BoxOnlyDatasetMapper(DatasetMapper):
    """Detectron2's mapper for records in which some objects have no mask.

    Instances get the field `gt_has_mask`, (N,) bool. An object without a mask has its box as `gt_masks`, so that
    cropping and resizing treat all objects alike; nobody may take that for its truth.
    """

    def _transform_annotations(self, dataset_dict: Record, transforms: Any, image_shape: tuple[int, int]) -> None:
        objects = [one for one in dataset_dict.pop("annotations") if one.get("iscrowd", 0) == 0]
        known = [has_mask(one) for one in objects]
        for one, is_known in zip(objects, known, strict=True):
            if not is_known:
                one["segmentation"] = box_as_polygon(one)
            if not self.use_instance_mask:
                one.pop("segmentation")
            if not self.use_keypoint:
                one.pop("keypoints", None)
        mapped = [
            utils.transform_instance_annotations(
                one, transforms, image_shape, keypoint_hflip_indices=self.keypoint_hflip_indices
            )
            for one in objects
        ]
        instances = utils.annotations_to_instances(mapped, image_shape, mask_format=self.instance_mask_format)
        instances.gt_has_mask = torch.tensor(known, dtype=torch.bool)
        # a stand-in knows no more than the box: neither where it is nor whether there is anything left of it
        keep = instances.gt_boxes.nonempty(_LEAST_SIDE)
        if instances.has("gt_masks"):
            if self.recompute_boxes:
                tight = instances.gt_masks.get_bounding_boxes().tensor
                instances.gt_boxes.tensor[instances.gt_has_mask] = tight[instances.gt_has_mask]
                keep = instances.gt_boxes.nonempty(_LEAST_SIDE)
            keep &= instances.gt_masks.nonempty() | ~instances.gt_has_mask
        dataset_dict["instances"] = instances[keep]


def mapper_class(cfg: CfgNode) -> type[DatasetMapper]:
    """The mapper that the training data of a config take."""
    return BoxOnlyDatasetMapper if cfg.MODEL.GAN.MASK.BOX_ONLY else DatasetMapper
