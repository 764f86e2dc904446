"""Data sets in COCO's format."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from gan_plugin.errors import UserError

from . import licence
from .scene import Scene, SceneFile, SceneObject, tight


class Coco:
    """The scenes of a COCO JSON of instances; any category."""

    title = "COCO format"

    def __init__(self, json_file: str | Path, images: str | Path) -> None:
        """
        Args:
            json_file: with "images", "annotations" and "categories".
            images: the folder that the file names are relative to.

        Raises:
            UserError: a path is missing, or the file is not of that format.
        """
        self.place, self.licence = str(json_file), licence.COCO
        if not Path(images).is_dir():
            raise UserError(f"The folder of images {images} does not exist; name the one that {json_file} is about.")
        try:
            content = json.loads(Path(json_file).read_text(encoding="utf-8"))
            self.categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
            self._images = {str(entry["id"]): entry for entry in content["images"]}
            self._annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for entry in content["annotations"]:
                self.categories[entry["category_id"]]
                self._annotations[str(entry["image_id"])].append(entry)
            names = {key: Path(entry["file_name"]) for key, entry in self._images.items()}
            self._files = [
                SceneFile(name.with_suffix("").as_posix(), Path(images) / name, "", key) for key, name in names.items()
            ]
        except OSError as error:
            raise UserError(f"{json_file} cannot be read ({error.strerror}); check the path.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{json_file} is no COCO file of instances ({error!r}); export it again.") from error
        repeated = [name for name, count in Counter(file.name for file in self._files).items() if count > 1]
        if repeated:
            raise UserError(f"{json_file} has two images named {repeated[0]}; give every image a name of its own.")

    def files(self) -> list[SceneFile]:
        return self._files

    def load(self, file: SceneFile) -> Scene:
        entry = self._images[file.truth]
        shape = (int(entry["height"]), int(entry["width"]))
        numbers: Counter[str] = Counter()
        objects, broken = [], []
        for annotation in self._annotations[file.truth]:
            label = self.categories[annotation["category_id"]]
            number = numbers[label]
            numbers[label] += 1
            mask, problem = _mask(annotation.get("segmentation"), shape)
            if problem:
                sentence = f"{self.place}: the mask of annotation {annotation.get('id')} ({label}) {problem}."
                broken.append((label, sentence))
                continue
            cut, corner = tight(mask)
            (x, y), (height, width) = corner, cut.shape
            outline = (float(x), float(y), float(x + width), float(y + height))
            group = bool(annotation.get("iscrowd"))
            objects.append(SceneObject(number, label, cut, corner, int(cut.sum()), outline, group))
        return Scene(objects, shape, None, broken)


def _mask(segmentation: Any, shape: tuple[int, int]) -> tuple[np.ndarray, str | None]:
    """The mask (H, W), and what is wrong with it."""
    empty = np.zeros(shape, bool)
    if not segmentation or (isinstance(segmentation, list) and any(len(part) < 6 for part in segmentation)):
        return empty, "is empty: a polygon takes three points"
    try:
        if isinstance(segmentation, list):
            rles = rle_tools.frPyObjects(segmentation, *shape)
        elif isinstance(segmentation["counts"], list):
            rles = [rle_tools.frPyObjects(segmentation, *segmentation["size"])]
        else:
            rles = [segmentation]
        mask = rle_tools.decode(rle_tools.merge(rles)).astype(bool)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return empty, f"cannot be decoded ({error})"
    if mask.shape != shape:
        return empty, f"is of {mask.shape[1]}x{mask.shape[0]} pixels, its image of {shape[1]}x{shape[0]}"
    return mask, None if mask.any() else f"has no pixel inside of the picture of {shape[1]}x{shape[0]}"
