"""Cityscapes' polygon files as one binary mask for each instance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from pycocotools import mask as rle_tools

from gan_plugin.data.cityscapes import files_of, read_polygons

from .mini_mask import mask_box

_LEAST_AREA = 1


def instance_map(polygons: Path) -> np.ndarray:
    """(H, W) whole numbers as Cityscapes' instanceIds: 1000 * label id + number, or the label id of a group.

    Drawn by cityscapesScripts: objects in the file's order, each over those before it.
    """
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage

    read = read_polygons(polygons)
    annotation = Annotation()
    annotation.fromJsonText(json.dumps({"imgHeight": read.height, "imgWidth": read.width, "objects": read.objects}))
    return np.asarray(createInstanceImage(annotation, "ids"))


def instance_masks(polygons: Path) -> list[tuple[str, bool, np.ndarray]]:
    """(class name, whether it is a group, (H, W) bool mask) of every object with instances, trailers included."""
    from cityscapesscripts.helpers.labels import id2label

    ids = instance_map(polygons)
    found = []
    for number in np.unique(ids):
        is_group = number < 1000
        label = id2label[int(number if is_group else number // 1000)]
        if label.hasInstances and label.id >= 0:
            found.append((label.name, bool(is_group), ids == number))
    return found


def record_of(image: Path, gt_dir: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """One image as a record in Detectron2's format, with plain JSON values and masks as run-length code.

    Boxes are computed from the masks (slides, section 1). Groups become iscrowd; objects that others hide completely
    are left out.

    Raises:
        UserError: the polygons are missing or broken.
    """
    polygons = files_of(image, gt_dir).polygons
    read = read_polygons(polygons)
    annotations = [
        _annotation(mask, classes.index(name), is_group)
        for name, is_group, mask in instance_masks(polygons)
        if name in classes and mask.sum() >= _LEAST_AREA
    ]
    return {
        "file_name": str(image),
        "image_id": image.name,
        "height": read.height,
        "width": read.width,
        "annotations": annotations,
    }


def _annotation(mask: np.ndarray, category: int, is_group: bool) -> dict[str, Any]:
    rle = rle_tools.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "bbox": list(mask_box(mask)),
        "bbox_mode": int(BoxMode.XYXY_ABS),
        "category_id": category,
        "iscrowd": int(is_group),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
    }
