"""Checks that turn a broken picture into one sentence while it is loaded."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks

from gan_plugin.data.pictures import DEEP, decode_problem, image_problem
from gan_plugin.errors import UserError


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
