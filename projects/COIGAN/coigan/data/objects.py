"""Cut-out objects of one class, each with its mask: what is pasted, and what masks are made of (thesis 4.2.4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.errors import UserError

from .images import read_rgb, write_png
from .line_store import LineStore, LineWriter
from .regions import Region, from_record, to_record


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
    """Write an object store: for each (key, pixels of the whole image or None, region) a cropped PNG and a record."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with LineWriter(folder) as writer:
        for key, pixels, region in objects:
            height, width = region.mask.shape
            record: dict[str, Any] = to_record(Region(region.label, 0, 0, region.mask), height, width)
            if pixels is not None:
                record["img"] = f"{key}.png"
                crop = pixels[region.y : region.y + height, region.x : region.x + width]
                write_png(folder / "data" / record["img"], crop)
            writer.add({"key": key, "size": [height, width], **record})


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
        record = self._lines[number]
        try:
            height, width = record["size"]
            key, region = record["key"], from_record(record, height, width)
            if region is None or region.mask.shape != (height, width):
                raise ValueError("its mask does not fill its box")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._lines.path}, line {number + 1}: {error}; prepare this data set again.") from error
        if self._masks_only or "img" not in record:
            return CutOut(key, region.mask, None)
        picture = self._folder / "data" / record["img"]
        pixels = read_rgb(picture)
        if pixels.shape[:2] != region.mask.shape:
            raise UserError(f"{picture} has another size than its record; prepare this data set again.")
        return CutOut(key, region.mask, pixels)
