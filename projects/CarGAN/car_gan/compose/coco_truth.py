"""The annotation of a composed picture as COCO's JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from car_gan.scenes.scene import Scene, SceneObject
from gan_plugin.data.masks import mask_to_polygons
from gan_plugin.errors import UserError

FORMS = ("polygon", "rle")


def annotations_of(scene: Scene, categories: Mapping[int, str], form: str) -> list[dict[str, Any]]:
    """The annotations of a scene, without "id" and "image_id".

    Args:
        scene: whose objects without a seen pixel are left out.
        categories: id -> label; objects of other labels are left out.
        form: "polygon" or "rle" of "segmentation"; groups are always RLE, with "iscrowd" 1.

    Returns:
        COCO's keys and "synthetic", 1 for pasted objects and 0 for annotated ones. "area" is the number of the mask's
        pixels, and the rasterised segmentation has exactly these pixels.

    Raises:
        UserError: the form is unknown.
    """
    if form not in FORMS:
        raise UserError(f"SEGMENTATION is '{form}'; set it to one of {', '.join(FORMS)}.")
    ids = {label: number for number, label in categories.items()}
    return [
        _annotation(thing, scene.shape, ids[thing.label], form)
        for thing in scene.objects
        if thing.label in ids and thing.area
    ]


def _annotation(thing: SceneObject, shape: tuple[int, int], category: int, form: str) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    return {
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": thing.area,
        "iscrowd": int(thing.group),
        "segmentation": _rle(thing, shape) if thing.group or form == "rle" else _polygons(thing),
        "synthetic": int(thing.synthetic),
    }


def _polygons(thing: SceneObject) -> list[list[float]]:
    x, y = thing.corner
    shift = np.array((x, y), float)
    return [(np.reshape(part, (-1, 2)) + shift).ravel().tolist() for part in mask_to_polygons(thing.mask)]


def _rle(thing: SceneObject, shape: tuple[int, int]) -> dict[str, Any]:
    encoded = rle_tools.encode(np.asfortranarray(thing.full_mask(shape).astype(np.uint8)))
    return {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode()}


def coco_file(
    images: Sequence[dict[str, Any]],
    annotations: Sequence[Sequence[dict[str, Any]]],
    categories: Mapping[int, str],
    info: dict[str, Any],
) -> dict[str, Any]:
    """The whole file: ids from 1 for images and annotations.

    Args:
        images: "file_name", "height", "width" and whatever else is known of each.
        annotations: of each image.
        categories: id -> name.
        info: of the data set.
    """
    numbered = [{"id": index, **image} for index, image in enumerate(images, start=1)]
    every = [
        {"image_id": image["id"], **annotation}
        for image, of_image in zip(numbered, annotations, strict=True)
        for annotation in of_image
    ]
    return {
        "info": info,
        "licenses": [{"id": 1, "name": info["licence"], "url": ""}],
        "images": [{**image, "license": 1} for image in numbered],
        "annotations": [{"id": index, **annotation} for index, annotation in enumerate(every, start=1)],
        "categories": [{"id": number, "name": name} for number, name in sorted(categories.items())],
    }
