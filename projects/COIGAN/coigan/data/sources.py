"""Data sets of other formats, opened as images with the exact masks of their objects."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from coigan.choices import FORMATS
from coigan.data.masked_pictures import MaskSource, check_pictures, has_pictures_in_folders
from coigan.data.regions import Region, components, tight
from coigan.data.regions import decode_runs as decode
from gan_plugin.data.cityscapes import IMAGE_SUFFIX, files_of, id_image_problem
from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.findings import Findings
from gan_plugin.data.pictures import read_header
from gan_plugin.data.shapes import decode_mask
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import read_text
from gan_plugin.rules import check_name

_COLUMNS = ("ImageId", "ClassId", "EncodedPixels")


class Source(Protocol):
    """Annotated images. It can be pickled, so that other processes read from it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a region's label is an index into them."""

    @property
    def images(self) -> Sequence[Path]:
        """The files, sorted."""

    @property
    def told(self) -> Counter[str]:
        """What was understood of the masks that this process has read, in words, with how often."""

    def name(self, number: int) -> str:
        """The path of image `number` below the folder of the pictures, with slashes; no other image has it."""

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The objects of image `number`, of that size in pixels; an index behind the last class is of none with a name.

        Raises:
            UserError: its annotation is damaged; the sentence names file and line or record.
        """


def open_source(path: str | Path, kind: str = "auto", images: str = "") -> Source:
    """Open the data set at `path`.

    Args:
        path: a folder; of COCO the JSON.
        kind: one of FORMATS; "auto" looks at what is there.
        images: of COCO the folder of pictures, if it is not beside the JSON.

    Raises:
        UserError: the format is unknown or cannot be told, or the data set is damaged.
    """
    root = Path(path)
    if check_name("--format", kind, FORMATS) == "auto":
        kind = _told(root)
    if kind == "severstal":
        return SeverstalSource(root)
    if kind == "folders":
        return MaskSource(root)
    return CocoSource(root, images) if kind == "coco" else CityscapesSource(root)


def recognised(root: Path) -> list[str]:
    """The formats that what is at `root` looks like: none, one, or several."""
    if root.suffix == ".json" and root.is_file():
        return ["coco"]
    signs = {"severstal": root / "train.csv", "cityscapes": root / "leftImg8bit", "folders": root / "masks"}
    found = [kind for kind, sign in signs.items() if sign.exists()]
    return found or (["folders"] if root.is_dir() and has_pictures_in_folders(root) else [])


def _told(root: Path) -> str:
    found = recognised(root)
    if len(found) != 1:
        raise UserError(
            f"{root} is no data set that can be told by what it holds (train.csv, leftImg8bit/, masks/, folders of "
            "pictures by class, or a JSON); name it with --format."
        )
    return found[0]


def label_map(classes: Sequence[str], chosen: Sequence[str]) -> dict[int, int]:
    """Index in `classes` -> index in `chosen`, of those that were chosen.

    Raises:
        UserError: a chosen class does not exist, or is chosen twice.
    """
    if len(set(chosen)) < len(chosen):
        raise UserError(f"A class is named twice in {', '.join(chosen)}; name each one once.")
    for name in chosen:
        if name not in classes:
            raise UserError(f"There is no class {name!r}; choose from {', '.join(classes)}.")
    return {list(classes).index(name): place for place, name in enumerate(chosen)}


def relabelled(regions: list[Region], new_label: dict[int, int]) -> list[Region]:
    """The regions whose label is a key of `new_label`, with its value as their label."""
    return [Region(new_label[r.label], r.x, r.y, r.mask) for r in regions if r.label in new_label]


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
        self._names = [file.relative_name(record).as_posix() for record in records]
        self.told: Counter[str] = Counter()

    def name(self, number: int) -> str:
        """The path below the folder of the pictures."""
        return self._names[number]

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The annotations' masks, without those that cover no pixel."""
        masks = (
            tight(decode_mask(entry["segmentation"], width, height), self._labels[entry["category_id"]])
            for entry in self._objects[number]
        )
        return [region for region in masks if region is not None]


class CityscapesSource:
    """An object is an instance of one of the eight evaluated classes, exactly as its visible pixels are.

    Args:
        folder: with leftImg8bit/ and gtFine/.
        splits: whose images are taken.

    Raises:
        UserError: there are no images, or one of them or its truth is missing or not what it should be.
    """

    def __init__(self, folder: str | Path, splits: tuple[str, ...] = ("train",)) -> None:
        from cityscapesscripts.helpers.labels import labels

        evaluated = [label for label in labels if label.hasInstances and not label.ignoreInEval]
        self.told: Counter[str] = Counter()
        self.classes = tuple(label.name for label in evaluated)
        self._label = {label.id: number for number, label in enumerate(evaluated)}
        root = Path(folder)
        self.images = sorted(
            path
            for split in splits
            for path in (root / "leftImg8bit" / split).glob(f"*/*{IMAGE_SUFFIX}")
            if path.is_file()
        )
        if not self.images:
            raise UserError(f"{root} holds no leftImg8bit/{splits[0]}/<city>/*{IMAGE_SUFFIX}; unpack Cityscapes there.")
        self._truth = []
        for image in self.images:
            truth = files_of(image, root / "gtFine" / image.parent.parent.name).instance_ids
            if not truth.is_file():
                raise UserError(f"{truth} is missing, so {image} has no annotation; unpack gtFine there.")
            self._truth.append(truth)
        check_pictures(self.images)
        findings = Findings(option="")
        for image, truth in zip(self.images, self._truth, strict=True):
            if problem := id_image_problem(truth, *read_header(image)[:2]):
                findings.add(*problem)
        findings.conclude()

    def name(self, number: int) -> str:
        """The file's own name, which begins with its city."""
        return self.images[number].name

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The visible part of each instance.

        Raises:
            UserError: the instance image cannot be decoded.
        """
        ids = self._instances(number)
        found = []
        for value in np.unique(ids[ids >= 1000]):
            label = self._label.get(int(value) // 1000)
            region = None if label is None else tight(ids == value, label)
            if region is not None:
                found.append(region)
        return found

    def _instances(self, number: int) -> np.ndarray:
        pixels = cv2.imdecode(np.fromfile(self._truth[number], np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 2:
            raise UserError(f"{self._truth[number]} cannot be decoded; unpack gtFine again.")
        return pixels


class SeverstalSource:
    """Classes are named "1" to "4"; each connected part of a class's mask is an object.

    Args:
        folder: with train_images/ and train.csv; a sheet without a row has no defect.

    Raises:
        UserError: something is missing, or a line of train.csv is wrong.
    """

    def __init__(self, folder: str | Path) -> None:
        self.told: Counter[str] = Counter()
        self._table = Path(folder) / "train.csv"
        images = Path(folder) / "train_images"
        self.images = sorted(path for path in images.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        if not self.images:
            raise UserError(f"{images} holds no images; unpack Severstal's training images there.")
        known = {path.name for path in self.images}
        # image name -> class -> line and run lengths of each row
        self._rows: dict[str, dict[int, list[tuple[int, str]]]] = {}
        for line, row in _rows(self._table):
            name, text = row["ImageId"], row["EncodedPixels"] or ""
            if name not in known:
                raise UserError(f"{self._table}, line {line}: {name} is not in {images}; add it or remove the line.")
            if not str(row["ClassId"]).isdigit() or int(row["ClassId"]) < 1:
                raise UserError(f"{self._table}, line {line}: ClassId {row['ClassId']!r} is no whole number above 0.")
            if text.strip():
                self._rows.setdefault(name, {}).setdefault(int(row["ClassId"]) - 1, []).append((line, text))
        highest = max((label for rows in self._rows.values() for label in rows), default=3)
        check_pictures(self.images)
        self.classes = tuple(str(number + 1) for number in range(max(highest + 1, 4)))

    def name(self, number: int) -> str:
        """The file's own name."""
        return self.images[number].name

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The connected parts of each class's mask; several rows of a class are one mask.

        Raises:
            UserError: run lengths do not fit the image.
        """
        found: list[Region] = []
        for label, rows in self._rows.get(self.images[number].name, {}).items():
            mask = np.zeros((height, width), bool)
            for line, text in rows:
                try:
                    mask |= decode(text, height, width) > 0
                except ValueError as error:
                    raise UserError(f"{self._table}, line {line}: {error}; correct or remove the line.") from error
            found += components(mask, label)
        return found


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    with as_user_error(f"{table} cannot be read", "unpack it again", csv.Error):
        reader = csv.DictReader(io.StringIO(read_text(table), newline=""))
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{table}, line 1: the column {missing[0]} is missing; it needs {', '.join(_COLUMNS)}.")
        return [(reader.line_num, row) for row in reader]
