"""A COCO JSON made of annotations in other forms, LabelMe's among them (a JSON file for each picture)."""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gan_plugin.errors import first_line

from . import kinds
from .findings import Findings, Grade, Kind, Problem
from .mask_files import Objects, Pair
from .masks import Part, parts_of
from .pictures import MISSING, header_of
from .shapes import area_of, decode_mask, examine_mask, is_finite, short

UNKNOWN_CLASS = Kind(Grade.BAD, "its class is not among those that were asked for", "name it with --classes")
PICTURE_TWICE = Kind(Grade.REFUSED, "another file has annotated the same picture", "merge the two")
ELSEWHERE = Kind(Grade.REFUSED, "the picture is not below the folder that was named", "move it there")
NO_OBJECT_AT_ALL = Kind(Grade.REFUSED, "there is no object in any picture", "look whether the masks are the right ones")
NO_FILE = Kind(Grade.REFUSED, "there is no JSON file below the folder", "name another one")
NO_LABELME = Kind(Grade.BAD, "this is no file of LabelMe, which has imagePath and a list of shapes", "remove it")
NO_LABEL = Kind(Grade.BAD, "the label is missing or no text", "give the shape one")
NO_AREA = Kind(Grade.BAD, "a shape of this type has no area", "draw a polygon around the object")
POINTS = Kind(Grade.BAD, "the points are not those of such a shape, pairs [x, y] of numbers", "draw it anew")
NO_PIXELS = Kind(Grade.BAD, "the mask of the shape cannot be read", "draw it anew")
_FLAT_SHAPES = ("point", "points", "line", "linestrip")


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


def labelme_files(root: Path, out: Path, findings: Findings) -> list[Path]:
    """The JSON files below a folder but for the one that is to be written."""
    files = sorted(path for path in root.rglob("*.json") if path.resolve() != out.resolve())
    if not files:
        findings.add(NO_FILE, root)
    return files


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read_labelme(runs: bool, path: Path) -> Annotated:
    """A picture and its objects: polygons, rectangles, circles and masks; those of one label and group_id are one.

    Args:
        runs: whether masks become run lengths instead of polygons.
        path: of the JSON file; its imagePath is relative to its own folder.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return Annotated(path, problems=[Problem(kinds.NO_JSON, str(path), detail=f" ({first_line(error)})")])
    if not is_labelme(content):
        return Annotated(path, problems=[Problem(NO_LABELME, str(path))])
    name = content["imagePath"]
    picture = path.parent / (name if isinstance(name, str) else "").replace("\\", "/")
    header = header_of(picture, *(content.get(key) or None for key in ("imageWidth", "imageHeight")))
    if isinstance(header, Problem):
        known = f" (the picture of {path.name}{'; it is in the JSON, save it' if content.get('imageData') else ''})"
        return Annotated(picture, problems=[header._replace(detail=known) if header.kind is MISSING else header])
    return _Shapes(path, picture, header.width, header.height, runs).read(content["shapes"])


class _Shapes:
    """The shapes of one file."""

    def __init__(self, path: Path, picture: Path, width: int, height: int, runs: bool) -> None:
        self.path, self.width, self.height, self.runs = path, width, height, runs
        self.read_so_far = Annotated(picture, width, height)
        self.entry = ""

    def note(self, kind: Kind, field: str = "", detail: str = "") -> None:
        self.read_so_far.problems.append(Problem(kind, str(self.path), self.entry, field, detail))

    def read(self, shapes: list[Any]) -> Annotated:
        groups: dict[tuple[str, Any], list[Any]] = {}
        for number, shape in enumerate(shapes, start=1):
            self.entry = f"shape {number}"
            label = shape.get("label") if isinstance(shape, dict) else None
            if not isinstance(label, str) or not label.strip():
                self.note(NO_LABEL, "label", f" ({short(label)})")
                continue
            outlined = self._outlined(shape, shape.get("shape_type") or "polygon")
            if outlined is not None:
                group = shape.get("group_id")
                key = f"alone {number}" if group is None else f"group {group}"
                groups.setdefault((label.strip(), key), []).append(outlined)
        for (label, _), members in groups.items():
            self.read_so_far.found.append(self._found(label, members))
        return self.read_so_far

    def _found(self, label: str, members: list[Any]) -> Found:
        polygons = [polygon for member in members for polygon in member]
        area = area_of(polygons, self.width, self.height)
        xs = np.concatenate([polygon[::2] for polygon in polygons]).clip(0, self.width)
        ys = np.concatenate([polygon[1::2] for polygon in polygons]).clip(0, self.height)
        box = [float(xs.min()), float(ys.min()), float(np.ptp(xs)), float(np.ptp(ys))]
        if not self.runs:
            return Found(label, box, area, polygons)
        (part,) = parts_of(decode_mask(polygons, self.width, self.height))
        box = [part.x, part.y, part.mask.shape[1], part.mask.shape[0]]
        return Found(label, box, area, part.runs(self.width, self.height))

    def _outlined(self, shape: dict[str, Any], form: str) -> list[list[float]] | None:
        """The sound polygons of a shape; None if it is of no use."""
        if form in _FLAT_SHAPES:
            self.note(NO_AREA, "shape_type", f" ({form})")
            return None
        points = shape.get("points")
        if not (
            isinstance(points, list)
            and all(isinstance(point, list) and len(point) == 2 and all(map(is_finite, point)) for point in points)
            and (form not in ("circle", "mask") or len(points) == 2)
            and (form != "rectangle" or len(points) in (2, 4))
        ):
            self.note(POINTS, "points", f" ({form})")
            return None
        if form == "mask":
            return self._drawn(shape, points)
        if form == "rectangle" and len(points) == 2:
            (x0, y0), (x1, y1) = points
            points = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        elif form == "circle":
            points = _circle(*points)
        elif form not in ("polygon", "rectangle", "oriented_rectangle"):
            self.note(NO_AREA, "shape_type", f" ({short(form)})")
            return None
        found = examine_mask([[float(x) for point in points for x in point]], self.width, self.height, self.note)
        if found is None:
            return None
        if area_of(found[0], self.width, self.height) == 0:
            self.note(kinds.EMPTY, "points")
            return None
        return found[0]

    def _drawn(self, shape: dict[str, Any], points: list[list[float]]) -> list[list[float]] | None:
        """The polygons of a shape that is a picture of its pixels in its box."""
        try:
            with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
                pixels = np.asarray(image.convert("L")) > 0
        except Exception as error:  # Pillow's decoders raise all kinds
            self.note(NO_PIXELS, "mask", f" ({first_line(error)})")
            return None
        x, y = (math.floor(value) for value in points[0])
        rows, columns = pixels.shape
        if x < 0 or y < 0 or x + columns > self.width or y + rows > self.height:
            self.note(kinds.OUTSIDE, "mask")
            return None
        parts = parts_of(pixels)
        if not parts:
            self.note(kinds.EMPTY, "mask")
            return None
        return Part(parts[0].x + x, parts[0].y + y, parts[0].mask).polygons


def _circle(center: list[float], edge: list[float]) -> list[list[float]]:
    """The points of a circle, so many that no edge is farther than a quarter pixel from it."""
    radius = math.dist(center, edge)
    number = max(12, math.ceil(math.pi / math.acos(max(0.0, 1 - 0.25 / max(radius, 0.5)))))
    angles = np.arange(number) * (2 * math.pi / number)
    return [[center[0] + radius * math.cos(angle), center[1] + radius * math.sin(angle)] for angle in angles]
