"""Synthetic images with the outlines of their labels."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from coigan.data.images import encode_png
from gan_plugin.data.pictures import read_rgb

from .grid import CLASS_COLOURS

_SIDE = 192


def outlined(folder: str | Path, count: int = 20) -> list[tuple[bytes, str]]:
    """The first `count` images of a set that `write_augmented` wrote, as PNG, each with a caption.

    Small images are enlarged, pixel by pixel, so that outlines of one pixel can be seen.
    """
    folder = Path(folder)
    content = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    pictures = []
    for image in content["images"][:count]:
        objects = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        pixels = read_rgb(folder / "images" / image["file_name"])
        masks = [coco_mask.decode(entry["segmentation"]) for entry in objects]
        drawn = draw_outlines(pixels, masks, [entry["category_id"] - 1 for entry in objects])
        classes = ", ".join(sorted({names[entry["category_id"]] for entry in objects}))
        pictures.append((encode_png(drawn), f"{image['file_name']}: class {classes}"))
    return pictures


def draw_outlines(pixels: np.ndarray, masks: Sequence[np.ndarray], labels: Sequence[int]) -> np.ndarray:
    """(H, W, 3) pixels, enlarged by a whole number, with the outline of each mask in its class's colour."""
    zoom = max(1, _SIDE // max(pixels.shape[:2]))
    picture = np.ascontiguousarray(pixels.repeat(zoom, 0).repeat(zoom, 1))
    for mask, label in zip(masks, labels, strict=True):
        large = np.ascontiguousarray(mask.astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1))
        contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, CLASS_COLOURS[label % len(CLASS_COLOURS)], 1)
    return picture
