"""Tiles of a line set, with their annotations, as training and evaluation read them (thesis 4.2.5 and 4.2.6)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.parallel import parallel_map
from gan_plugin.errors import UserError

from .coco_json import coco_content
from .images import write_png
from .line_sets import LineSet, write_json, write_line_set
from .regions import Region, to_record
from .tiling import tiles


@dataclass(frozen=True)
class BlackFilter:
    """Which tiles show too little of the sheet.

    Attributes:
        below: a grey value (mean of the channels) under it is black.
        most: share of a tile's pixels that may be black.
    """

    below: int = 10
    most: float = 0.1

    def passes(self, tile: np.ndarray) -> bool:
        """Whether (S, S, 3) uint8 has few enough black pixels."""
        return bool((tile.mean(axis=2) < self.below).mean() <= self.most)


@dataclass(frozen=True)
class _Cut:
    """Cuts one image of a line set; other processes get a copy."""

    lines: LineSet
    folder: Path
    tile: int
    black: BlackFilter | None
    only_clean: bool

    def __call__(self, number: int) -> list[dict[str, Any]]:
        record = self.lines.store[number]
        regions = self.lines.regions(record) + (self.lines.others(record) if self.only_clean else [])
        pixels = self.lines.image(record)
        side, made = self.tile, []
        height, width = pixels.shape[:2]
        if min(height, width) < side:
            raise UserError(
                f"{self.lines.path(record)} has {width}x{height} pixels, so that no tile of {side} fits; choose a "
                "smaller --tile, or leave the image out."
            )
        for x, y in tiles(height, width, side):
            inside = [part for region in regions if (part := region.cut(x, y, side, side)) is not None]
            tile = np.ascontiguousarray(pixels[y : y + side, x : x + side])
            if (self.only_clean and inside) or (self.black and not self.black.passes(tile)):
                continue
            name = f"{Path(record['img']).stem}_{y:05d}_{x:05d}.png"
            write_png(self.folder / name, tile, compact=True)
            made.append({"img": name, "size": [side, side], "polygons": [_entry(part, side) for part in inside]})
        return made


def _entry(region: Region, side: int) -> dict[str, Any]:
    return to_record(region, side, side)


def write_tiles(
    lines: LineSet, folder: Path, tile: int, black: BlackFilter | None, only_clean: bool = False, workers: int = 1
) -> None:
    """Write the tiles of all images as a line set whose pictures lie beside dataset.jsonl, and annotations.json.

    Args:
        lines: of whole images.
        folder: made if need be.
        tile: side in pixels.
        black: leaves tiles out; None for none.
        only_clean: leave out tiles with any pixel of an object, also of a class that was left out.
        workers: processes, -1 for one a core.

    Raises:
        UserError: an image is damaged or smaller than a tile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cut = _Cut(lines, folder, tile, black, only_clean)
    records = (record for made in parallel_map(cut, range(len(lines)), workers) for record in made)
    write_line_set(folder, records, lines.classes, ".", tile_size=tile)
    write_json(folder / "annotations.json", coco_content(LineSet(folder)))
