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

    Raises:
        UserError: there is no store.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lines = folder, LineStore(folder)

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
            region = from_record(record, height, width)
            if region is None or region.mask.shape != (height, width):
                raise ValueError("its mask does not fill its box")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._lines.path}, line {number + 1}: {error}; prepare this data set again.") from error
        pixels = read_rgb(self._folder / "data" / record["img"]) if "img" in record else None
        return CutOut(record["key"], region.mask, pixels)
