"""Kaggle's Severstal steel defect detection: train_images/ and train.csv with run lengths (thesis 4.2.1)."""

import csv
import io
from pathlib import Path

import numpy as np

from coigan.data import rle
from coigan.data.regions import Region, components
from gan_plugin.errors import UserError
from gan_plugin.files import read_text

from .base import check_pictures

_COLUMNS = ("ImageId", "ClassId", "EncodedPixels")


class SeverstalSource:
    """Classes are named "1" to "4"; each connected part of a class's mask is an object.

    Args:
        folder: with train_images/ and train.csv; a sheet without a row has no defect.

    Raises:
        UserError: something is missing, or a line of train.csv is wrong.
    """

    def __init__(self, folder: str | Path) -> None:
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

    def has_objects(self, number: int) -> bool:
        """Whether train.csv has a row for it."""
        return self.images[number].name in self._rows

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
                    mask |= rle.decode(text, height, width) > 0
                except ValueError as error:
                    raise UserError(f"{self._table}, line {line}: {error}; correct or remove the line.") from error
            found += components(mask, label)
        return found


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(read_text(table), newline=""))
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(f"{table}, line 1: the column {missing[0]} is missing; it needs {', '.join(_COLUMNS)}.")
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{table} cannot be read ({error}); unpack it again.") from error
