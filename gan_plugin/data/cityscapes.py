"""Cityscapes' annotations: what is in them, and what is wrong with them before anything is trained or measured.

An object is what cityscapesScripts takes for one: `"deleted": 0`, which its label tool writes to all that it saves, is
no deletion, though Detectron2's loader leaves out every entry with that key (`gan_plugin.compat` corrects it).
"""

import json
import multiprocessing
import os
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.utils import comm

from gan_plugin.data.coco_json import no_garbage_collection
from gan_plugin.data.findings import Findings, Grade, Kind, Problem
from gan_plugin.data.kinds import ENCODING, FAR, FEW_POINTS, NO_NUMBER, OUTSIDE
from gan_plugin.data.pictures import header_problem
from gan_plugin.errors import UserError
from gan_plugin.processes import leave_ctrl_c_to_parent

IMAGE_SUFFIX = "_leftImg8bit.png"
POLYGONS, INSTANCE_IDS, LABEL_IDS = "_gtFine_polygons.json", "_gtFine_instanceIds.png", "_gtFine_labelIds.png"
ALL_TRUTH = (POLYGONS, INSTANCE_IDS, LABEL_IDS)

_UNPACK, _CORRECT = "unpack it from gtFine again", "correct or remove it"
_WAYS_OUT = (
    "download leftImg8bit and gtFine from cityscapes-dataset.com, prepare them with cityscapesScripts and set "
    "DETECTRON2_DATASETS to the folder that holds cityscapes/, or run `.venv/bin/python tools/make_toy_cityscapes.py "
    "OUT` and set DETECTRON2_DATASETS=OUT"
)
NO_FOLDER = Kind(Grade.REFUSED, "there is no such folder", _WAYS_OUT)
NO_IMAGES = Kind(Grade.REFUSED, f"there is no image <city>/*{IMAGE_SUFFIX} in this folder", _WAYS_OUT)
NO_TRUTH = Kind(Grade.REFUSED, "the annotation of an image is missing", _UNPACK)
NO_IMAGE = Kind(Grade.BAD, "the image of an annotation is missing", "unpack it from leftImg8bit again")
NO_CITY = Kind(Grade.REPAIRED, "there are annotations of a city without images", "they are not used")
STRAY = Kind(Grade.REFUSED, f"this is no Cityscapes image (<city>/*{IMAGE_SUFFIX})", "move it elsewhere")
NAME_TWICE = Kind(Grade.REFUSED, "two images have this name", "give every image a name of its own")
NOTHING = Kind(
    Grade.REFUSED,
    "no image here has an object of a class with instances",
    "take another set, such as the split val: the truth of Cityscapes' own test split is not public",
)
UNREADABLE = Kind(Grade.REFUSED, "the file cannot be read", "check its permissions")
NO_JSON = Kind(Grade.REFUSED, "this is not valid JSON", _UNPACK)
NO_ANNOTATION = Kind(
    Grade.REFUSED,
    "this is JSON but no Cityscapes annotation, which has imgHeight and imgWidth above 0 and a list of objects",
    _UNPACK,
)
SIZE_TYPE = Kind(Grade.REPAIRED, "imgHeight or imgWidth are not written as whole numbers", "they were made so")
UNDRAWN = Kind(Grade.REPAIRED, "the polygon has no point", "the object was left out")
NO_OBJECT = Kind(Grade.BAD, "the entry has no label or no polygon", _CORRECT)
NO_LABEL = Kind(Grade.BAD, "Cityscapes does not define the label", "rename or remove it")
FORM = Kind(Grade.BAD, "the polygon is no list of points [x, y]", "write it so")
NO_IDS = Kind(
    Grade.REFUSED,
    "this is no instance id image, which is a PNG file with one channel of 16 bits",
    "make it from the polygons with cityscapesscripts.preparation.json2instanceImg, and save it so",
)
IDS_SIZE = Kind(Grade.REFUSED, "the instance id image is not of the size of its image", _UNPACK)

# by PNG's colour type
_CHANNELS = {0: "grey values", 2: "colours", 3: "a palette", 4: "grey values and transparency", 6: "transparency too"}
_PROCESSES_FROM, _MOST_PROCESSES = 200, 16


class Files(NamedTuple):
    """An image and where its annotations are."""

    image: Path
    polygons: Path
    instance_ids: Path
    label_ids: Path


def files_of(image: str | os.PathLike, gt_dir: str | os.PathLike) -> Files:
    """The files of the image <city>/<name>_leftImg8bit.png under gtFine/<split>; none needs to be there."""
    image = Path(image)
    stem = os.path.join(gt_dir, image.parent.name, image.stem.removesuffix("_leftImg8bit"))
    return Files(image, *(Path(stem + suffix) for suffix in ALL_TRUTH))


class Streets(NamedTuple):
    """What a split holds: objects of classes with instances, and image -> width and height that its polygons say."""

    objects: int
    sizes: dict[str, tuple[int, int]]


@dataclass
class Polygons:
    """A polygon file.

    Attributes:
        height, width: of the image in pixels.
        objects: those that are not deleted and sound, in the file's order: "label" and "polygon" [[x, y], ...].
        problems: what was repaired, and what kept the other entries from being in `objects`.
    """

    height: int
    width: int
    objects: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_polygons(path: str | os.PathLike) -> Polygons:
    """The objects of <name>_gtFine_polygons.json, none of which can do harm.

    Raises:
        UserError: it is missing, or no annotation of Cityscapes.
    """
    return _sound(_read(path))


def parse_polygons(content: bytes, path: str | os.PathLike) -> Polygons:
    """The objects in the content of a polygon file; see `read_polygons`.

    Args:
        content: of the file, in any encoding of JSON.
        path: of the file, for the sentences.
    """
    return _sound(_parse(content, path))


def _sound(read: Polygons | Problem) -> Polygons:
    if isinstance(read, Problem):
        raise UserError(read.sentence)
    return read


def _read(path: str | os.PathLike) -> Polygons | Problem:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return Problem(NO_TRUTH, os.fspath(path))
    except OSError as error:
        return Problem(UNREADABLE, os.fspath(path), detail=f" ({error.strerror})")
    return _parse(content, path)


def _parse(content: bytes, path: str | os.PathLike) -> Polygons | Problem:
    note = partial(Problem, file=os.fspath(path))
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        return note(NO_JSON, detail=f" ({error})")
    size = [_whole(found.get(key)) for key in ("imgHeight", "imgWidth")] if isinstance(found, dict) else []
    if None in size or not size or not isinstance(found.get("objects"), list):
        return note(NO_ANNOTATION)
    read = Polygons(*size)  # type: ignore[arg-type]
    if json.detect_encoding(content) != "utf-8":
        read.problems.append(note(ENCODING))
    if not isinstance(found["imgHeight"], int) or not isinstance(found["imgWidth"], int):
        read.problems.append(note(SIZE_TYPE))
    kept = [
        (number, entry)
        for number, entry in enumerate(found["objects"])
        if not (isinstance(entry, dict) and entry.get("deleted"))
    ]
    faults = {} if _are_sound(kept, read) else {number: _fault(entry, read) for number, entry in kept}
    for number, entry in kept:
        kind, detail = faults.get(number) or (None, "")
        if kind is None:
            read.objects.append({key: value for key, value in entry.items() if key != "deleted"})
        else:
            label = f" ({entry['label']})" if isinstance(entry, dict) and isinstance(entry.get("label"), str) else ""
            read.problems.append(note(kind, entry=f"object {number}{label}", detail=detail))
    return read


def id_image_problem(path: str | os.PathLike, width: int = 0, height: int = 0) -> Problem | None:
    """What is wrong with an instance id image as far as its first bytes tell.

    Args:
        path: of the file.
        width, height: that it should have in pixels; 0 if any will do.
    """
    note = partial(Problem, file=os.fspath(path))
    try:
        with open(path, "rb") as file:
            head = file.read(26)
    except OSError:
        return note(NO_TRUTH)
    if len(head) < 26 or not head.startswith(b"\x89PNG\r\n\x1a\n") or head[12:16] != b"IHDR":
        return note(NO_IDS, detail=" (it is no PNG file)")
    size, bits, channels = struct.unpack(">II", head[16:24]), head[24], head[25]
    if (bits, channels) != (16, 0):
        return note(NO_IDS, detail=f" (it has {bits} bits a value and {_CHANNELS.get(channels, 'no known channels')})")
    if width and size != (width, height):
        return note(IDS_SIZE, detail=f" ({size[0]}x{size[1]}, not {width}x{height})")
    return None


def examine_cityscapes(
    image_dir: str | os.PathLike,
    gt_dir: str | os.PathLike,
    findings: Findings,
    *,
    cities: Sequence[str] = (),
    truth: Sequence[str] = ALL_TRUTH,
    headers: bool = True,
) -> Streets:
    """Examine the files of a split; no picture is decoded.

    Args:
        image_dir, gt_dir: leftImg8bit/<split> and gtFine/<split>.
        findings: get the problems.
        cities: of the split; all by default.
        truth: which of ALL_TRUTH have to be there.
        headers: whether to look at the images' headers as well.
    """
    missing = [folder for folder in (image_dir, gt_dir) if not os.path.isdir(folder)]
    for folder in missing:
        findings.add(NO_FOLDER, folder, detail=_environment())
    if missing:
        return Streets(0, {})
    images, strays = _images(Path(image_dir), cities)
    if not images and not strays:
        findings.add(NO_IMAGES, image_dir, detail=_environment())
    findings.extend(Problem(STRAY, str(stray)) for stray in strays)
    names = Counter(image.name for image in images)
    findings.extend(Problem(NAME_TWICE, str(image)) for image in images if names[image.name] > 1)
    files = [files_of(image, gt_dir) for image in images]
    _examine_without_images(Path(gt_dir), files, cities, findings)
    found = _in_processes(partial(_examine, truth=tuple(truth), headers=headers), files)
    findings.extend(problem for problems, _, _ in found for problem in problems)
    streets = Streets(
        sum(count for _, count, _ in found),
        {str(each.image): size for each, (_, _, size) in zip(files, found, strict=True) if size != (0, 0)},
    )
    if files and not streets.objects:
        findings.add(NOTHING, gt_dir)
    return streets


def _images(image_dir: Path, cities: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The images of the cities, and what lies where only they may."""
    top = sorted(image_dir.iterdir())
    folders = [folder for folder in top if folder.is_dir() and (not cities or folder.name in cities)]
    entries = [entry for folder in folders for entry in sorted(folder.iterdir())]
    images = [entry for entry in entries if entry.name.endswith(IMAGE_SUFFIX) and entry.is_file()]
    outside = [] if cities else [entry for entry in top if not entry.is_dir()]
    return images, outside + sorted(set(entries) - set(images))


def _examine_without_images(gt_dir: Path, files: list[Files], cities: Sequence[str], findings: Findings) -> None:
    known = {each.polygons for each in files}
    present = {each.polygons.parent.name for each in files}
    for folder in sorted(folder for folder in gt_dir.iterdir() if folder.is_dir()):
        lone = sorted(set(folder.glob(f"*{POLYGONS}")) - known)
        if folder.name in present:
            findings.extend(Problem(NO_IMAGE, str(path)) for path in lone)
        elif lone and not cities:
            findings.add(NO_CITY, folder)


def _examine(files: Files, truth: tuple[str, ...], headers: bool = True) -> tuple[list[Problem], int, tuple[int, int]]:
    """The problems of an image and its annotations, its objects of classes with instances, and its size if known."""
    problems, width, height, count = [], 0, 0, 0
    for path, suffix in zip(files[1:], ALL_TRUTH, strict=True):
        if suffix in truth and not path.is_file():
            problems.append(Problem(NO_TRUTH, str(path)))
    if files.polygons.is_file():
        read = _read(files.polygons)
        if isinstance(read, Problem):
            problems.append(read)
        else:
            problems += read.problems
            width, height = read.width, read.height
            count = sum(entry["label"].removesuffix("group") in _with_instances() for entry in read.objects)
    if headers and (problem := header_problem(files.image, width or None, height or None)) is not None:
        problems.append(problem)
    if INSTANCE_IDS in truth and files.instance_ids.is_file():
        problem = id_image_problem(files.instance_ids, width, height)
        problems += [problem] if problem else []
    return problems, count, (width, height)


def _in_processes(work: Callable[[Files], Any], files: list[Files]) -> list[Any]:
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // comm.get_local_size())
    # the processes inherit it
    with no_garbage_collection():
        if len(files) < _PROCESSES_FROM or processes < 2 or multiprocessing.current_process().daemon:
            return [work(each) for each in files]
        with multiprocessing.get_context("fork").Pool(processes, leave_ctrl_c_to_parent) as pool:
            return pool.map(work, files, chunksize=32)


def _whole(value: Any) -> int | None:
    """A size in pixels, also as 1024.0 or "1024"; None if it is none."""
    try:
        number = None if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    is_size = number is not None and 0 < number < 1 << 20 and (isinstance(value, str) or number == value)
    return number if is_size else None


def _are_sound(kept: list[tuple[int, Any]], read: Polygons) -> bool:
    """Whether all entries are, by the quick way: all coordinates of the file at once."""
    try:
        polygons = [entry["polygon"] for _, entry in kept]
        labels = {entry["label"] for _, entry in kept}
        points = list(chain.from_iterable(polygons))
        plain = set(map(type, polygons)) <= {list} and set(map(type, points)) <= {list} and set(map(len, points)) <= {2}
        values = list(chain.from_iterable(points))
        if not plain or not set(map(type, values)) <= {int, float} or min(map(len, polygons), default=3) < 3:
            return False
        known = all(type(label) is str and _is_label(label) for label in labels)
        at = np.array(values, dtype=float).reshape(-1, 2)
    except (TypeError, KeyError, OverflowError):
        return False
    size = np.array([read.width, read.height])
    # NaN is not within either
    if not known or not ((-size <= at) & (at <= 2 * size)).all():
        return False
    if not len(at):
        return True
    starts = np.cumsum([0, *map(len, polygons[:-1])])
    least, most = np.minimum.reduceat(at, starts), np.maximum.reduceat(at, starts)
    return bool(((most >= 0) & (least < size)).all())


def _fault(entry: Any, read: Polygons) -> tuple[Kind, str] | None:
    """What is wrong with one entry, and its detail."""
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str) or "polygon" not in entry:
        return NO_OBJECT, ""
    if not _is_label(entry["label"]):
        return NO_LABEL, f" '{entry['label']}'"
    polygon = entry["polygon"]
    if not isinstance(polygon, list) or not all(isinstance(point, list) and len(point) == 2 for point in polygon):
        return FORM, ""
    if not polygon:
        return UNDRAWN, ""
    values = list(chain.from_iterable(polygon))
    if any(isinstance(value, list | dict) for value in values):
        return FORM, ""
    if not all(type(value) in (int, float) and value == value and abs(value) < np.inf for value in values):
        return NO_NUMBER, ""
    if len(polygon) < 3:
        return FEW_POINTS, ""
    for ordinates, limit in ((values[::2], read.width), (values[1::2], read.height)):
        if min(ordinates) < -limit or max(ordinates) > 2 * limit:
            return FAR, ""
    xs, ys = values[::2], values[1::2]
    return None if max(xs) >= 0 and min(xs) < read.width and max(ys) >= 0 and min(ys) < read.height else (OUTSIDE, "")


def _is_label(text: str) -> bool:
    from cityscapesscripts.helpers.labels import name2label

    return text in name2label or text.endswith("group") and text.removesuffix("group") in name2label


@cache
def _with_instances() -> frozenset[str]:
    from cityscapesscripts.helpers.labels import name2label

    return frozenset(name for name, label in name2label.items() if label.hasInstances and label.id >= 0)


def _environment() -> str:
    return f" (DETECTRON2_DATASETS is {os.environ.get('DETECTRON2_DATASETS') or 'not set'})"
