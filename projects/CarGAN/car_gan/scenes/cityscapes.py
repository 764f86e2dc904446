"""Cityscapes' layout: leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_polygons.json."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gan_plugin.data.cityscapes import (
    IMAGE_SUFFIX,
    NO_LABEL,
    NOTHING,
    POLYGONS,
    Polygons,
    examine_cityscapes,
    files_of,
    read_polygons,
)
from gan_plugin.data.findings import Findings, Grade, Problem
from gan_plugin.errors import UserError

from .scene import TERMS_CITYSCAPES, TERMS_TOY, Scene, SceneFile, SceneObject, tight

SPLITS = ("train", "val", "test")
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
    more: tuple[str, ...] = ("caravan", "trailer")

    def __init__(
        self, folder: str | Path, splits: Sequence[str] = SPLITS, on_bad: str = "stop", option: str = ""
    ) -> None:
        """
        Args:
            folder: that holds leftImg8bit and gtFine, or a folder cityscapes that does.
            splits: of SPLITS; those that are absent are passed over.
            on_bad, option: what becomes of broken annotations, see `Findings`.

        Raises:
            UserError: the folder has not that layout, a split is unknown, or something is the matter with pictures or
                annotations; all of it is told together.
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
        self.licence = TERMS_TOY if toy else TERMS_CITYSCAPES
        findings = Findings(on_bad, option)
        self._files: list[SceneFile] = []
        for split in self._splits:
            images, truth = self.folder / "leftImg8bit" / split, self.folder / "gtFine" / split
            examine_cityscapes(images, truth, findings, truth=(POLYGONS,))
            for image in sorted(images.glob(f"*/*{IMAGE_SUFFIX}")):
                city, stem = image.parent.name, image.name.removesuffix(IMAGE_SUFFIX)
                file = SceneFile(f"{split}/{city}/{stem}", image, city, str(files_of(image, truth).polygons))
                self._files.append(file)
        # the public annotation of Cityscapes' test split is a dummy
        findings.groups.pop(NOTHING, None)
        findings.conclude()

    def files(self) -> list[SceneFile]:
        return self._files

    def load(self, file: SceneFile) -> Scene:
        return paint(read_polygons(file.truth))


def paint(read: Polygons) -> Scene:
    """Paint polygons over one another, later ones over earlier ones, and take apart what is seen of each."""
    shape = (read.height, read.width)
    numbers: Counter[str] = Counter()
    named: list[tuple[int, str, bool, bool, list[tuple[float, float]]]] = []
    owner = Image.new("I", shape[::-1], 0)
    drawer = ImageDraw.Draw(owner)
    for entry in read.objects:
        label, group, has_instances, drawn = _label(entry["label"])
        number = numbers[label]
        numbers[label] += has_instances and not group
        points = [(float(x), float(y)) for x, y in entry["polygon"]]
        if drawn:
            named.append((number, label, group, has_instances, points))
            drawer.polygon(points, fill=len(named))
    owners = np.asarray(owner)
    objects = [_object(index + 1, owners, *of_one) for index, of_one in enumerate(named)]
    road = np.isin(owners, [index + 1 for index, (_, label, *_) in enumerate(named) if label in _ROAD])
    return Scene(
        objects, shape, road, [_broken(problem) for problem in read.problems if problem.kind.grade is Grade.BAD]
    )


def _broken(problem: Problem) -> tuple[str, str]:
    """The class of an entry that cannot be painted, as far as it has one, and what is wrong with it."""
    text = problem.entry.partition("(")[2].removesuffix(")")
    known = problem.kind is not NO_LABEL and text
    return _label(text)[0] if known else "", problem.sentence


def _label(text: str) -> tuple[str, bool, bool, bool]:
    """The class, whether it is a group, whether its instances are told apart, and whether it is painted at all."""
    from cityscapesscripts.helpers.labels import name2label

    group = text not in name2label and text.endswith("group")
    name = text.removesuffix("group") if group else text
    label = name2label[name]
    return name, group, label.hasInstances, label.id >= 0


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
