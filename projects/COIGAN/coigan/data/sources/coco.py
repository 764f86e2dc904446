"""COCO's JSON of instances: polygons or run lengths."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from coigan.data.regions import Region, from_coco_rle, tight
from gan_plugin.errors import UserError


class CocoSource:
    """An object is an annotation; a part of it may lie in a hole of another part.

    Args:
        path: of the JSON.
        images: the folder of the pictures; "" for the JSON's own folder, or the folder images/ beside it.

    Raises:
        UserError: the file is no such JSON, or an image is missing.
    """

    def __init__(self, path: str | Path, images: str | Path = "") -> None:
        self._path = Path(path)
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            records = sorted(content["images"], key=lambda record: record["file_name"])
            categories = sorted(content["categories"], key=lambda record: record["id"])
            labels = {record["id"]: label for label, record in enumerate(categories)}
            self._ids = [record["id"] for record in records]
            known = set(self._ids)
            self._objects: dict[int, list[dict[str, Any]]] = {}
            for place, annotation in enumerate(content["annotations"]):
                name = annotation.get("id", f"number {place}")
                if problem := _problem(annotation, labels, known):
                    raise UserError(f"{path}, annotation {name}: {problem}; correct or remove it.")
                label = labels[annotation["category_id"]]
                own = {"id": name, "label": label, "segmentation": annotation["segmentation"]}
                self._objects.setdefault(annotation["image_id"], []).append(own)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); name a COCO JSON.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no COCO JSON of instances ({type(error).__name__}: {error}).") from error
        self.classes = tuple(str(record["name"]) for record in categories)
        self._names = ["_".join(Path(record["file_name"]).parts) for record in records]
        folder = Path(images) if images else self._folder(records)
        self.images = [folder / record["file_name"] for record in records]
        for image in self.images:
            if not image.is_file():
                raise UserError(f"{path} names the image {image}, which does not exist; name the folder with --images.")

    def _folder(self, records: list[dict[str, Any]]) -> Path:
        beside = self._path.parent
        return beside if records and (beside / records[0]["file_name"]).is_file() else beside / "images"

    def name(self, number: int) -> str:
        """The file_name with underscores between its parts."""
        return self._names[number]

    def has_objects(self, number: int) -> bool:
        """Whether it has an annotation."""
        return self._ids[number] in self._objects

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The annotations' masks, without those that cover no pixel.

        Raises:
            UserError: a segmentation cannot be decoded, or has another size than the image.
        """
        found = []
        for annotation in self._objects.get(self._ids[number], ()):
            try:
                mask = decode_segmentation(annotation["segmentation"], height, width)
                if mask.shape != (height, width):
                    raise ValueError(f"a mask of {mask.shape[1]}x{mask.shape[0]} pixels on {width}x{height}")
            except Exception as error:  # pycocotools raises bare Exceptions
                raise UserError(
                    f"{self._path}, annotation {annotation['id']}: its segmentation cannot be read ({error}); correct "
                    "or remove it."
                ) from error
            region = tight(mask, annotation["label"])
            if region is not None:
                found.append(region)
        return found


def _problem(annotation: dict[str, Any], labels: dict[int, int], images: set[int]) -> str:
    missing = [key for key in ("image_id", "category_id", "segmentation") if key not in annotation]
    if missing:
        return f"it has no {missing[0]}"
    if annotation["category_id"] not in labels:
        return f"there is no category {annotation['category_id']}"
    return "" if annotation["image_id"] in images else f"there is no image {annotation['image_id']}"


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """(H, W) bool from COCO's polygons, plain or compressed run lengths.

    Raises:
        Exception: it is none of these.
    """
    if isinstance(segmentation, list):
        if not segmentation or any(len(ring) < 6 for ring in segmentation):
            raise ValueError("a polygon has three points or more")
        encoded = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    else:
        encoded = segmentation
    return from_coco_rle(encoded).astype(bool)
