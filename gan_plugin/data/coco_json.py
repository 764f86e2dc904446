"""The one reader of COCO JSON files: what they say in a form that every program takes, and what is wrong with them."""

import gc
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gan_plugin.errors import UserError, first_line

from . import kinds
from .findings import Findings, Kind
from .mappers import has_mask
from .pictures import examine_pictures, read_header
from .shapes import area_of, examine_box, examine_mask, is_finite, is_number, short, whole

Entry = dict[str, Any]
_LARGEST_SIDE = 1_000_000
_LISTS = ("images", "annotations", "categories")


@dataclass
class CocoFile:
    """The content of a COCO JSON, with whatever could be repaired repaired and broken annotations left out.

    Attributes:
        path: of the file.
        folder: of its pictures.
        content: the whole file. Every image has id, file_name, width and height; every category id and name; every
            annotation id, image_id, category_id, bbox, area, iscrowd and, if masks were asked for, segmentation.
        changed: whether it differs from the file, so that other readers of the file would not see the same.
        classes: the names of the categories in the order of their ids, which is that of Detectron2's classes; empty
            if the categories are wrong.
        left_out: the broken annotations.
        objects: the number of annotations that are no crowd.
        unmasked, asked: how many objects have no mask, of how many, those that are left out included.
        has_truth: whether it has a list of annotations.
    """

    path: Path
    folder: Path
    content: Entry
    changed: bool = False
    classes: list[str] = field(default_factory=list)
    left_out: list[Entry] = field(default_factory=list)
    objects: int = 0
    unmasked: int = 0
    asked: int = 0
    has_truth: bool = True

    @property
    def images(self) -> list[Entry]:
        return self.content["images"]

    @property
    def annotations(self) -> list[Entry]:
        return self.content.get("annotations", [])

    @property
    def categories(self) -> list[Entry]:
        """In the order of their ids, which is that of Detectron2's classes."""
        return sorted(self.content["categories"], key=lambda entry: entry["id"])

    def picture(self, image: Entry) -> Path:
        """The file of an image; a file_name may be absolute."""
        return self.folder / image["file_name"]

    def relative_name(self, image: Entry) -> Path:
        """The path of an image below the folder of the pictures; of one that is elsewhere below the root."""
        path = self.picture(image)
        return path.relative_to(self.folder if path.is_relative_to(self.folder) else path.anchor)

    def pictures(self) -> Iterator[tuple[Path, int | None, int | None]]:
        """File, width and height of each image, also where the file is refused for something else."""
        for image in self.images:
            if isinstance(image, dict) and isinstance(image.get("file_name"), str):
                yield self.picture(image), whole(image.get("width")), whole(image.get("height"))

    def annotations_of_images(self) -> dict[Any, list[Entry]]:
        """image_id -> its annotations in the file's order; every image is there."""
        found: dict[Any, list[Entry]] = {image["id"]: [] for image in self.images}
        for entry in self.annotations:
            found[entry["image_id"]].append(entry)
        return found


def load_coco(
    path: str | os.PathLike, images: str | os.PathLike | None = None, *, on_bad: str = "stop", option: str = ""
) -> CocoFile:
    """`read_coco` and the headers of its pictures, for a program that reads one file; what was repaired is logged.

    Args:
        path, images: as for `read_coco`.
        on_bad, option: what becomes of broken annotations, see `Findings`.

    Raises:
        UserError: something is the matter with the file or its pictures; all of it is told together.
    """
    findings = Findings(on_bad, option)
    file = read_coco(path, images, findings)
    examine_pictures(file.pictures(), findings)
    findings.conclude()
    return file


def read_coco(
    path: str | os.PathLike,
    images: str | os.PathLike | None,
    findings: Findings,
    *,
    masks: bool = True,
    box_only: bool = False,
) -> CocoFile:
    """Read a COCO JSON of instances and repair what says nothing about its content.

    Args:
        path: of the file, in any encoding that JSON allows.
        images: the folder of its pictures; None for the file's own folder, or the folder images/ beside it.
        findings: gets all problems. If it refuses one, the result is of no use.
        masks: whether every annotation needs a mask; if not, masks are left out where they are broken.
        box_only: whether an object may be without a mask nevertheless.

    Returns:
        The file. No picture has been looked at.
    """
    # the folder is settled with the names of the pictures at the latest
    file = CocoFile(Path(path), None if images is None else Path(images), {name: [] for name in _LISTS})  # type: ignore
    with no_garbage_collection():
        content, encoded = _parsed(file.path, findings)
        if content is not None:
            _Reading(file, content, findings, masks, box_only).run()
            file.changed = file.changed or encoded
    return file


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For reading JSON: millions of lists and not one cycle, so that collecting would take longer than all the rest."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parsed(path: Path, findings: Findings) -> tuple[Entry | None, bool]:
    """What the JSON holds, None if it is no COCO file; and whether it is in another encoding than plain UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        findings.add(kinds.UNREADABLE, path, detail=f" ({error.strerror})")
        return None, False
    encoding = json.detect_encoding(data)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        findings.add(kinds.NO_JSON, path, detail=f" ({first_line(error)})")
        return None, False
    if not isinstance(content, dict) or not any(name in content for name in _LISTS):
        was = f"; it is {_kind_of(content)}"
        findings.add(kinds.NO_COCO, path, detail=was)
        return None, False
    if encoding != "utf-8":
        findings.add(kinds.ENCODING, path, detail=f" ({encoding})")
    return content, encoding != "utf-8"


def _kind_of(value: Any) -> str:
    names = {list: "a list", dict: "an object without them", str: "a text", type(None): "null", bool: "a truth value"}
    return names.get(type(value), "a number")


class _Reading:
    """The examination of one file, list by list."""

    def __init__(self, file: CocoFile, content: Entry, findings: Findings, masks: bool, box_only: bool) -> None:
        self.file, self.findings, self.masks, self.box_only = file, findings, masks, box_only
        file.content = content
        self.categories: set[int] = set()
        self.sizes: dict[Any, tuple[int, int] | None] = {}
        self.place = ""

    def run(self) -> None:
        categories, images, annotations = (self._list(name) for name in ("categories", "images", "annotations"))
        self._read_categories(categories)
        self._settle_pictures(images or [])
        self._read_images(images)
        if annotations is not None:
            self._read_annotations(annotations)

    def note(self, kind: Kind, field: str = "", detail: str = "") -> None:
        """Add a problem of the entry that is being read."""
        self.findings.add(kind, self.file.path, self.place, field, detail)
        self.file.changed = self.file.changed or kind is not kinds.FLAT

    def _list(self, name: str) -> list[Any] | None:
        value = self.file.content.get(name)
        if isinstance(value, list):
            return value
        self.place = f'"{name}"'
        if name == "annotations" and name not in self.file.content and self.file.path.name.startswith("image_info"):
            self.findings.add(kinds.NO_TRUTH, self.file.path, self.place)
            self.file.has_truth = False
            return None
        self.note(kinds.NO_LIST)
        self.file.content[name] = []
        return None

    def _objects(self, entries: list[Any] | None, word: str) -> Iterator[Entry]:
        for number, entry in enumerate(entries or (), start=1):
            self.place = f"{word} number {number}"
            if isinstance(entry, dict):
                self._name_place(word, entry)
                yield entry
            else:
                self.note(kinds.NO_OBJECT)

    def _name_place(self, word: str, entry: Entry) -> None:
        if type(entry.get("id")) in (int, str, float):
            self.place = f"{word} {entry['id']}"

    def _read_categories(self, entries: list[Any] | None) -> None:
        names: set[str] = set()
        for entry in self._objects(entries, "category"):
            number = self._whole_id(entry)
            if number is not None:
                if number in self.categories:
                    self.note(kinds.ID_TWICE, "id")
                self.categories.add(number)
            name = entry.get("name")
            if is_number(name):
                self.note(kinds.NAME_TYPE, "name")
                name = entry["name"] = str(name)
            if not isinstance(name, str) or not name.strip():
                self.note(kinds.NO_NAME, "name")
            elif name in names:
                self.note(kinds.NAME_TWICE, "name", f" ({name})")
            else:
                names.add(name)
        if entries is not None and not entries:
            self.place = '"categories"'
            self.note(kinds.NO_CATEGORIES)
        if entries and len(names) == len(self.categories) == len(entries):
            self.file.classes = [entry["name"] for entry in self.file.categories]

    def _whole_id(self, entry: Entry) -> int | None:
        raw = entry.get("id")
        number = whole(raw)
        if number is None:
            self.note(kinds.ID_FORM, "id")
        elif type(raw) is not int:
            self.note(kinds.ID_TYPE, "id")
            entry["id"] = number
        return number

    def _read_images(self, entries: list[Any] | None) -> None:
        texts = bool(entries) and all(
            isinstance(entry, dict) and type(entry.get("id")) is str for entry in entries or ()
        )
        names: set[str] = set()
        for entry in self._objects(entries, "image"):
            key = entry["id"] if texts else self._whole_id(entry)
            if key in self.sizes and key is not None:
                self.note(kinds.ID_TWICE, "id")
            self.sizes[key] = self._size_of(entry)
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                self.note(kinds.NO_NAME, "file_name")
                continue
            if name in names:
                self.note(kinds.FILE_TWICE, "file_name", f" ({name})")
            names.add(name)
        if entries is not None and not entries:
            self.place = '"images"'
            self.note(kinds.NO_IMAGES)

    def _size_of(self, entry: Entry) -> tuple[int, int] | None:
        if entry.get("width") is None and entry.get("height") is None:
            self._take_size(entry)
        width, height = sides = whole(entry.get("width")), whole(entry.get("height"))
        if width is None or height is None or not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
            was = ", ".join(
                f"{key} {short(entry[key])}" if key in entry else f"no {key}" for key in ("width", "height")
            )
            self.note(kinds.SIZE_FORM, "", f" ({was})")
            return None
        if type(entry["width"]) is not int or type(entry["height"]) is not int:
            self.note(kinds.SIZE_TYPE)
            entry["width"], entry["height"] = sides
        return width, height

    def _take_size(self, entry: Entry) -> None:
        """From the picture, if there is one."""
        try:
            header = read_header(self.file.picture(entry))
        except (UserError, KeyError, TypeError):
            return
        self.note(kinds.SIZE_MADE)
        entry["width"], entry["height"] = header.width, header.height

    def _settle_pictures(self, entries: list[Any]) -> None:
        """Settle the folder and the slashes."""
        named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("file_name"), str)]
        if self.file.folder is None:
            beside = self.file.path.parent
            found = not named or (beside / named[0]["file_name"].replace("\\", "/")).is_file()
            self.file.folder = beside if found else beside / "images"
        folder = self.file.folder
        if not folder.is_dir() and any(not os.path.isabs(entry["file_name"]) for entry in named):
            self.place = ""
            self.note(kinds.NO_FOLDER, "", f" ({folder})")
        for entry in named:
            name = entry["file_name"]
            if "\\" in name and os.sep == "/" and not (folder / name).is_file():
                self._name_place("image", entry)
                self.note(kinds.BACKSLASHES, "file_name")
                entry["file_name"] = name.replace("\\", "/")

    def _read_annotations(self, entries: list[Any]) -> None:
        if (
            self.masks
            and not self.box_only
            and entries
            and not any(isinstance(entry, dict) and entry.get("segmentation") for entry in entries)
        ):
            self.place = ""
            self.note(kinds.NO_MASKS)
            self.masks = False
        kept: list[Entry] = []
        seen: set[int | None] = set()
        numbered = True
        may_repeat = "minival" in str(self.file.path)
        for number, entry in enumerate(entries, start=1):
            self.place = f"annotation number {number}"
            if not isinstance(entry, dict):
                self.note(kinds.BAD_OBJECT)
                continue
            self._name_place("annotation", entry)
            key = whole(entry.get("id"))
            if key is None or key <= 0:
                self.note(kinds.RENUMBERED, "id")
                numbered = False
            elif type(entry["id"]) is not int:
                self.note(kinds.ID_TYPE, "id")
                entry["id"] = key
            first = key is None or key not in seen or may_repeat
            seen.add(key)
            if not first:
                self.note(kinds.ANNOTATION_TWICE, "id")
            (kept if self._is_sound(entry) and first else self.file.left_out).append(entry)
        if not numbered:
            for number, entry in enumerate(kept, start=1):
                entry["id"] = number
        self.file.content["annotations"] = kept
        self.file.objects = sum(not entry["iscrowd"] for entry in kept)

    def _is_sound(self, entry: Entry) -> bool:
        known = self._refers(entry, "image_id", self.sizes, kinds.NO_SUCH_IMAGE)
        sound = self._refers(entry, "category_id", self.categories, kinds.NO_SUCH_CATEGORY) and known
        sound = self._flags_are_sound(entry) and sound
        size = self.sizes[entry["image_id"]] if known else None
        return (size is None or self._shape_is_sound(entry, *size)) and sound

    def _refers(self, entry: Entry, field: str, known: Any, kind: Kind) -> bool:
        value = entry.get(field)
        if type(value) in (int, str) and value in known:
            return True
        for other in (whole(value), str(value)):
            if other in known and other is not None:
                self.note(kinds.ID_TYPE, field)
                entry[field] = other
                return True
        if not known:
            # which has been said
            return False
        self.note(kind, field, f" ({short(value)})" if field in entry else " (it is missing)")
        return False

    def _flags_are_sound(self, entry: Entry) -> bool:
        crowd = entry.get("iscrowd")
        if type(crowd) is not int:
            self.note(kinds.CROWD_MADE, "iscrowd")
            crowd = entry["iscrowd"] = int(crowd) if isinstance(crowd, bool) else 0 if crowd is None else whole(crowd)
        sound = crowd in (0, 1)
        if not sound:
            self.note(kinds.CROWD_FORM, "iscrowd")
        if "ignore" in entry and entry["ignore"] != 0:
            if entry["ignore"] and whole(entry["ignore"]) != 0:
                self.note(kinds.IGNORED, "ignore", f" ({short(entry['ignore'])})")
                sound = False
            else:
                self.note(kinds.IGNORE_FORM, "ignore")
                entry["ignore"] = 0
        points = entry.get("keypoints")
        if points and not (isinstance(points, list) and len(points) % 3 == 0 and all(map(is_finite, points))):
            self.note(kinds.KEYPOINTS_FORM, "keypoints")
            return False
        return sound

    def _shape_is_sound(self, entry: Entry, width: int, height: int) -> bool:
        lacks = not entry["iscrowd"] and not has_mask(entry)
        self.file.asked += not entry["iscrowd"]
        self.file.unmasked += lacks
        masks = self.masks and not (lacks and self.box_only)
        found = examine_mask(entry.get("segmentation"), width, height, self.note if masks else _tell_nobody)
        mask, extent, area = found or (None, None, math.nan)
        if mask is None and masks:
            if entry.get("bbox"):
                examine_box(entry["bbox"], None, width, height, self.note)
            return False
        if mask is not None:
            entry["segmentation"] = mask
        elif entry.pop("segmentation", None):
            # a list of empty polygons, say, for which Detectron2's reader would leave the object out
            self.file.changed = True
            if not self.masks:
                self.note(kinds.MASK_UNUSED, "segmentation")
        box = examine_box(entry.get("bbox"), extent, width, height, self.note)
        if box is None:
            return False
        entry["bbox"] = box
        if area == 0 and box[2] > 0 and box[3] > 0:
            self.note(kinds.EMPTY, "segmentation")
            return False
        said: Any = entry.get("area")
        if not is_finite(said) or said < 0:
            self.note(kinds.AREA_MADE, "area")
            entry["area"] = area_of(mask, width, height) if mask is not None else box[2] * box[3]
        return True


def _tell_nobody(*problem: Any) -> None:
    """Of a mask that nobody asked for."""
