"""From a record to what the model gets: pictures checked while they load, objects with or without a mask."""

import copy
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks

from gan_plugin.data.pictures import DEEP, decode_problem, image_problem
from gan_plugin.errors import UserError

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


class CheckedDatasetMapper:
    """A dataset mapper that names the file when an image cannot be read, and that copes with images without instances.

    Wraps any callable from one record (Detectron2's standard dict) to one mapped record. Two things change:

    - An image that does not decode, or has another size than its annotations say, raises UserError with its path.
    - A training image without instances gets an empty `gt_masks` beside its empty `gt_boxes`. Detectron2's mapper
      leaves the field out, and fails on such an image when INPUT.CROP is on, because it then wants boxes from masks.
      It takes DATALOADER.FILTER_EMPTY_ANNOTATIONS False for such images to arrive here at all.
    """

    def __init__(self, mapper: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        self.mapper: Any = mapper

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | None:
        mapper = self._mapper_for(record)
        try:
            mapped = mapper(record)
        except UserError:
            raise
        except Exception as error:
            sentence = _explanation(record)
            if sentence is None:
                raise
            raise UserError(sentence) from error
        if mapped is not None and isinstance(mapped.get("instances"), Instances):
            self._add_empty_masks(mapped["instances"])
        return mapped

    def _mapper_for(self, record: dict[str, Any]) -> Callable:
        has_instances = any(not annotation.get("iscrowd", 0) for annotation in record.get("annotations", ()))
        if has_instances or not getattr(self.mapper, "recompute_boxes", False):
            return self.mapper
        without_boxes = copy.copy(self.mapper)
        without_boxes.recompute_boxes = False
        return without_boxes

    def _add_empty_masks(self, instances: Instances) -> None:
        if len(instances) or instances.has("gt_masks") or not getattr(self.mapper, "use_instance_mask", False):
            return
        if self.mapper.instance_mask_format == "polygon":
            instances.gt_masks = PolygonMasks([])
        else:
            instances.gt_masks = BitMasks(torch.zeros((0, *instances.image_size), dtype=torch.bool))


def _explanation(record: dict[str, Any]) -> str | None:
    if "file_name" in record:
        problem = decode_problem(record["file_name"], record.get("width"), record.get("height"))
        # a mapper of the user's own may know what to do with more than 8 bits
        if problem and problem.kind is not DEEP:
            return problem.sentence
    return image_problem(record["sem_seg_file_name"]) if "sem_seg_file_name" in record else None
