"""Cut-out objects of one class, each with its mask: what is pasted, and what masks are made of (thesis 4.2.4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

from .images import write_png
from .line_sets import PARAMS
from .line_store import LINES, LineStore, LineWriter
from .regions import Region, from_record, to_record
from .statistics import Row, write_object_reports


@dataclass(frozen=True)
class CutOut:
    """An object's pixels and mask, cropped to its box.

    Attributes:
        key: its name in the store, for provenance.
        mask: (h, w) bool.
        pixels: (h, w, 3) uint8; None for a bare mask.
    """

    key: str
    mask: np.ndarray
    pixels: np.ndarray | None


def write_objects(folder: Path, objects: Iterable[tuple[str, np.ndarray | None, Region]]) -> None:
    """Write an object store, and its reports into reports/.

    Args:
        folder: made if need be.
        objects: (key, pixels of the whole image or None, region); each gives a record and, with pixels, a cropped PNG.

    Raises:
        UserError: the reports cannot be written.
    """
    rows: list[Row] = []
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with LineWriter(folder) as writer:
        for key, pixels, region in objects:
            height, width = region.mask.shape
            record: dict[str, Any] = to_record(Region(region.label, 0, 0, region.mask), height, width)
            if pixels is not None:
                record["img"] = f"{key}.png"
                crop = pixels[region.y : region.y + height, region.x : region.x + width]
                write_png(folder / "data" / record["img"], crop, compact=True)
            writer.add({"key": key, "size": [height, width], **record})
            rows.append((key, height, width, region.area))
    write_object_reports(folder / "reports", rows)


def is_object_store(folder: Path) -> bool:
    """Whether `folder` holds records of objects, and not of whole images."""
    return (folder / LINES).is_file() and not (folder / PARAMS).exists()


class ObjectStore:
    """The objects in a folder, read one at a time.

    Args:
        folder: of the store.
        masks_only: leave the pictures unread, where only shapes are wanted.

    Raises:
        UserError: there is no store.
    """

    def __init__(self, folder: Path, masks_only: bool = False) -> None:
        self._folder, self._lines, self._masks_only = folder, LineStore(folder), masks_only

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> CutOut:
        """Object `number`, 0-based.

        Raises:
            UserError: its record or picture is damaged.
        """
        key, region, img = self._read(number)
        if self._masks_only or img is None:
            return CutOut(key, region.mask, None)
        picture = self._folder / "data" / img
        pixels = read_rgb(picture)
        if pixels.shape[:2] != region.mask.shape:
            raise UserError(f"{picture} has another size than its record; prepare this data set again.")
        return CutOut(key, region.mask, pixels)

    def measured(self) -> list[Row]:
        """(name, height, width, area) of each object; no picture is read.

        Raises:
            UserError: a record is damaged.
        """
        read = (self._read(number) for number in range(len(self)))
        return [(key, *region.mask.shape, region.area) for key, region, _ in read]

    def label(self) -> int | None:
        """The class of its first object; None if there is none.

        Raises:
            UserError: its record is damaged.
        """
        return self._read(0)[1].label if len(self) else None

    def _read(self, number: int) -> tuple[str, Region, str | None]:
        record = self._lines[number]
        try:
            height, width = record["size"]
            key, region = str(record["key"]), from_record(record, height, width)
            if region is None or region.mask.shape != (height, width):
                raise ValueError("its mask does not fill its box")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._lines.path}, line {number + 1}: {error}; prepare this data set again.") from error
        return key, region, record.get("img")
