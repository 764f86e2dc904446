"""A COCO JSON made of annotations in other forms."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .findings import Findings, Grade, Kind, Problem
from .mask_files import Objects, Pair

UNKNOWN_CLASS = Kind(Grade.BAD, "its class is not among those that were asked for", "name it with --classes")
PICTURE_TWICE = Kind(Grade.REFUSED, "another file has annotated the same picture", "merge the two")
ELSEWHERE = Kind(Grade.REFUSED, "the picture is not below the folder that was named", "move it there")
NO_OBJECT_AT_ALL = Kind(Grade.REFUSED, "there is no object in any picture", "look whether the masks are the right ones")


class Found(NamedTuple):
    """An object: the name of its class, its box [x, y, width, height], its area in pixels, its mask in COCO's form."""

    category: str
    box: list[float]
    area: float
    segmentation: Any


@dataclass
class Annotated:
    """A picture and what is known about it.

    Attributes:
        picture: its file.
        width: in pixels; 0 if it is of no use.
        height: likewise.
        found: its objects.
        problems: what is wrong with it, or with objects that are left out.
    """

    picture: Path
    width: int = 0
    height: int = 0
    found: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def annotated(read: Callable[[Pair], Objects], runs: bool, pair: Pair) -> Annotated:
    """The picture of `pair` with the objects that `read` finds, as polygons or run lengths of exactly their pixels."""
    width, height, parts, problems = read(pair)
    found = [
        Found(
            pair.category,
            [part.x, part.y, part.mask.shape[1], part.mask.shape[0]],
            int(part.mask.sum()),
            part.runs(width, height) if runs else part.polygons,
        )
        for part in parts
    ]
    return Annotated(pair.picture, width, height, found, problems)


def coco_of(
    pictures: Iterable[Annotated], root: Path, findings: Findings, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of a COCO JSON.

    Args:
        pictures: in the order that they will have.
        root: the folder that the names of the pictures are relative to.
        findings: gets all problems. If it refuses one, the result is of no use.
        classes: their names in the order of their ids; empty for those that have objects, by name.
    """
    images: list[dict[str, Any]] = []
    objects: list[tuple[int, Found]] = []
    seen: set[str] = set()
    for one in pictures:
        findings.extend(one.problems)
        if not one.width:
            continue
        if not one.picture.resolve().is_relative_to(root.resolve()):
            findings.add(ELSEWHERE, one.picture, detail=f" ({root})")
            continue
        name = one.picture.resolve().relative_to(root.resolve()).as_posix()
        if name in seen:
            findings.add(PICTURE_TWICE, one.picture)
        seen.add(name)
        images.append({"id": len(images) + 1, "file_name": name, "width": one.width, "height": one.height})
        for found in one.found:
            if classes and found.category not in classes:
                findings.add(UNKNOWN_CLASS, one.picture, detail=f" ({found.category})")
            else:
                objects.append((len(images), found))
    if images and not objects and not findings.refused:
        findings.add(NO_OBJECT_AT_ALL, root)
    names = list(classes) or sorted({found.category for _, found in objects})
    ids = {name: number for number, name in enumerate(names, start=1)}
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": ids[found.category],
            "iscrowd": 0,
            "bbox": found.box,
            "area": found.area,
            "segmentation": found.segmentation,
        }
        for number, (image, found) in enumerate(objects, start=1)
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def summary_of(content: dict[str, Any]) -> str:
    """A sentence on how much there is in a COCO file."""
    counted = Counter(entry["category_id"] for entry in content["annotations"])
    classes = ", ".join(f"{entry['name']} {counted[entry['id']]}" for entry in content["categories"])
    without = len(content["images"]) - len({entry["image_id"] for entry in content["annotations"]})
    return (
        f"{len(content['images'])} pictures, {without} of them without an object; "
        f"{len(content['annotations'])} objects: {classes}."
    )
