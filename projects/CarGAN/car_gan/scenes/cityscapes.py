"""Cityscapes' layout: leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_polygons.json."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from gan_plugin.errors import UserError

from . import licence
from .scene import Scene, SceneFile, SceneObject, tight

SPLITS = ("train", "val", "test")
_IMAGE, _TRUTH = "_leftImg8bit.png", "_gtFine_polygons.json"
# where a car can stand
_ROAD = ("road", "parking")
# what can be in front of a car besides the classes with instances; the last three reach the lower border, and are the
# nearest of all
_STANDING = (
    *("pole", "traffic sign", "traffic light", "dynamic", "static"),
    *("ego vehicle", "out of roi", "rectification border"),
)


class Cityscapes:
    """The scenes of a Cityscapes folder; masks are painted from the polygons as the official scripts do it."""

    title = "Cityscapes"
    # the classes with instances, in Detectron2's order
    categories = dict(enumerate(("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"), start=1))

    def __init__(self, folder: str | Path, splits: Sequence[str] = SPLITS) -> None:
        """
        Args:
            folder: that holds leftImg8bit and gtFine, or a folder cityscapes that does.
            splits: of SPLITS; those that are absent are passed over.

        Raises:
            UserError: the folder has not that layout, or a split is unknown.
        """
        given = Path(folder)
        self.folder = given / "cityscapes" if (given / "cityscapes").is_dir() else given
        self.place = str(folder)
        if unknown := [split for split in splits if split not in SPLITS]:
            raise UserError(f"The split '{unknown[0]}' is unknown; Cityscapes has {', '.join(SPLITS)}.")
        self._splits = [split for split in splits if (self.folder / "leftImg8bit" / split).is_dir()]
        if not self._splits or not (self.folder / "gtFine").is_dir():
            raise UserError(
                f"{folder} has no leftImg8bit/{{{','.join(splits)}}} with a gtFine beside it; unpack both there, or "
                "make a toy set with tools/make_toy_cityscapes.py."
            )
        toy = (self.folder / "toy_cityscapes.json").is_file()
        self.licence = licence.TOY if toy else licence.CITYSCAPES

    def files(self) -> list[SceneFile]:
        found = []
        for split in self._splits:
            for image in sorted((self.folder / "leftImg8bit" / split).glob(f"*/*{_IMAGE}")):
                stem, city = image.name.removesuffix(_IMAGE), image.parent.name
                truth = self.folder / "gtFine" / split / city / f"{stem}{_TRUTH}"
                if not truth.is_file():
                    raise UserError(f"{truth} is missing, the annotation of {image}; unpack gtFine again.")
                found.append(SceneFile(f"{split}/{city}/{stem}", image, city, str(truth)))
        if not found:
            raise UserError(f"{self.place} has no image <split>/<city>/*{_IMAGE}; unpack leftImg8bit there.")
        return found

    def load(self, file: SceneFile) -> Scene:
        content = _read(Path(file.truth))
        return paint(content["objects"], (int(content["imgHeight"]), int(content["imgWidth"])), file.truth)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["objects"] = [entry for entry in content["objects"] if not entry.get("deleted")]
        for entry in content["objects"]:
            str(entry["label"]), [(float(x), float(y)) for x, y in entry["polygon"]]
        int(content["imgHeight"]), int(content["imgWidth"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no Cityscapes annotation ({error!r}); unpack it from gtFine again.") from error
    return content


def paint(entries: Sequence[dict[str, Any]], shape: tuple[int, int], place: str) -> Scene:
    """Paint polygons over one another, later ones over earlier ones, and take apart what is seen of each.

    Args:
        entries: "label" and "polygon" [[x, y], ...] of each object, as polygons.json lists them.
        shape: height and width of the picture.
        place: of the annotation, for sentences.

    Raises:
        UserError: a label is none of Cityscapes'.
    """
    numbers: Counter[str] = Counter()
    named: list[tuple[int, str, bool, bool, list[tuple[float, float]]]] = []
    broken: list[tuple[str, str]] = []
    owner = Image.new("I", shape[::-1], 0)
    drawer = ImageDraw.Draw(owner)
    for entry in entries:
        label, group, has_instances, drawn = _label(entry["label"], place)
        number = numbers[label]
        numbers[label] += has_instances and not group
        points = [(float(x), float(y)) for x, y in entry["polygon"]]
        problem = _problem(points, shape)
        if problem:
            broken.append((label, f"{place}: the polygon of {entry['label']} number {number} {problem}."))
        elif drawn:
            named.append((number, label, group, has_instances, points))
            drawer.polygon(points, fill=len(named))
    owners = np.asarray(owner)
    objects = [_object(index + 1, owners, *of_one) for index, of_one in enumerate(named)]
    road = np.isin(owners, [index + 1 for index, (_, label, *_) in enumerate(named) if label in _ROAD])
    return Scene(objects, shape, road, broken)


def _label(text: str, place: str) -> tuple[str, bool, bool, bool]:
    """The class, whether it is a group, whether its instances are told apart, and whether it is painted at all."""
    from cityscapesscripts.helpers.labels import name2label

    group = text not in name2label and text.endswith("group")
    name = text.removesuffix("group") if group else text
    if name not in name2label:
        raise UserError(f"{place} has the label '{text}', which Cityscapes does not define; rename or remove it.")
    label = name2label[name]
    return name, group, label.hasInstances, label.id >= 0


def _problem(points: Sequence[tuple[float, float]], shape: tuple[int, int]) -> str | None:
    if len(points) < 3:
        return f"is empty: it has {len(points)} points, and an area takes three"
    xs, ys = zip(*points, strict=True)
    if max(xs) < 0 or max(ys) < 0 or min(xs) >= shape[1] or min(ys) >= shape[0]:
        return f"lies outside of the picture of {shape[1]}x{shape[0]} pixels"
    return None


def _object(
    owner: int, owners: np.ndarray, number: int, label: str, group: bool, has_instances: bool, points: list
) -> SceneObject:
    xs, ys = zip(*points, strict=True)
    left, top = max(0, int(min(xs))), max(0, int(min(ys)))
    right, bottom = min(owners.shape[1], int(max(xs)) + 2), min(owners.shape[0], int(max(ys)) + 2)
    outline = Image.new("1", (right - left, bottom - top))
    ImageDraw.Draw(outline).polygon([(x - left, y - top) for x, y in points], fill=1)
    whole, start = tight(np.asarray(outline), (left, top))
    (x, y), (height, width) = start, whole.shape
    box = (float(x), float(y), float(x + width), float(y + height))
    mask, corner = tight(owners[top:bottom, left:right] == owner, (left, top))
    background = not (has_instances or label in _STANDING)
    return SceneObject(number, label, mask, corner, int(whole.sum()), box, group, background)
