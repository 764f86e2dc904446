"""COCO's JSON of instances: polygons or run lengths."""

from pathlib import Path

from coigan.data.regions import Region, tight
from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.shapes import decode_mask


class CocoSource:
    """An object is an annotation; a part of it may lie in a hole of another part.

    Args:
        path: of the JSON.
        images: the folder of the pictures; "" for the JSON's own folder, or the folder images/ beside it.

    Raises:
        UserError: something is the matter with the file or its pictures; all of it is told together.
    """

    def __init__(self, path: str | Path, images: str | Path = "") -> None:
        file = load_coco(path, images or None)
        records = sorted(file.images, key=lambda record: record["file_name"])
        self.images = [file.picture(record) for record in records]
        self.classes = tuple(record["name"] for record in file.categories)
        self._labels = {record["id"]: label for label, record in enumerate(file.categories)}
        objects = file.annotations_of_images()
        self._objects = [objects[record["id"]] for record in records]
        self._names = ["_".join(file.relative_name(record).parts) for record in records]

    def name(self, number: int) -> str:
        """The path below the folder of the pictures with underscores between its parts."""
        return self._names[number]

    def has_objects(self, number: int) -> bool:
        """Whether it has an annotation."""
        return bool(self._objects[number])

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The annotations' masks, without those that cover no pixel."""
        masks = (
            tight(decode_mask(entry["segmentation"], width, height), self._labels[entry["category_id"]])
            for entry in self._objects[number]
        )
        return [region for region in masks if region is not None]
