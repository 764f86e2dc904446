"""COCO's JSON of instances, as Detectron2's `register_coco_instances` loads it (INPUT.MASK_FORMAT bitmask)."""

from typing import Any

import numpy as np

from .line_sets import LineSet
from .regions import Region, to_coco_rle


def categories_of(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Categories with the ids 1, 2, ..."""
    return [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]


def annotation(key: int, image: int, label: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """One object: `mask` (H, W) bool of the whole image, not empty, as exact run lengths, so with its holes."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "id": key,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": to_coco_rle(mask),
        **more,
    }


def coco_content(lines: LineSet) -> dict[str, Any]:
    """The whole JSON of a line set; image ids count from 1 in the order of its records."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(lines.store, start=1):
        height, width = record["size"]
        images.append({"id": number, "file_name": record["img"], "height": height, "width": width})
        for region in lines.regions(record):
            annotations.append(_of_region(len(annotations) + 1, number, region, height, width))
    return {
        "info": {"description": str(lines.folder.name)},
        "categories": categories_of(lines.classes),
        "images": images,
        "annotations": annotations,
    }


def _of_region(key: int, image: int, region: Region, height: int, width: int) -> dict[str, Any]:
    return annotation(key, image, region.label, region.painted(height, width))
