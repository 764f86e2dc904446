"""Tiles of a line set, with their annotations, as training and evaluation read them (thesis 4.2.5 and 4.2.6)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.parallel import parallel_map

from .images import write_png
from .line_sets import LineSet, coco_content, write_json, write_line_set
from .regions import to_record


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
        # a mirror image at the right and the bottom; what is annotated there is not the picture's
        missing = max(0, side - height), max(0, side - width)
        pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="reflect")
        for x, y in tiles(height, width, side):
            inside = [part for region in regions if (part := region.cut(x, y, side, side)) is not None]
            tile = np.ascontiguousarray(pixels[y : y + side, x : x + side])
            if (self.only_clean and inside) or (self.black and not self.black.passes(tile)):
                continue
            name = f"{Path(record['img']).stem}_{y:05d}_{x:05d}.png"
            write_png(self.folder / name, tile, compact=True)
            made.append(
                {"img": name, "size": [side, side], "polygons": [to_record(part, side, side) for part in inside]}
            )
        return made


def write_tiles(
    lines: LineSet, folder: Path, tile: int, black: BlackFilter | None, only_clean: bool = False, workers: int = 1
) -> None:
    """Write the tiles of all images as a line set whose pictures lie beside dataset.jsonl, and annotations.json.

    An image that is smaller than a tile gives one that its mirror image fills up, without objects there.

    Args:
        lines: of whole images.
        folder: made if need be.
        tile: side in pixels.
        black: leaves tiles out; None for none.
        only_clean: leave out tiles with any pixel of an object, also of a class that was left out.
        workers: processes, -1 for one a core.

    Raises:
        UserError: an image is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cut = _Cut(lines, folder, tile, black, only_clean)
    records = (record for made in parallel_map(cut, range(len(lines)), workers) for record in made)
    write_line_set(folder, records, lines.classes, ".", tile_size=tile)
    write_json(folder / "annotations.json", coco_content(LineSet(folder)))


def tile_offsets(length: int, tile: int) -> list[int]:
    """Where the tiles of `tile` pixels begin on a side of `length` pixels.

    There are ceil(length / tile), evenly spaced: 0, 224, ..., 1344 for 1600 and 256. Where they cannot be spaced evenly
    the last one still ends with the side; the thesis' code left up to a tile count of pixels out there. On a shorter
    side there is one.
    """
    count = -(-length // tile)
    return [place * (length - tile) // (count - 1) for place in range(count)] if count > 1 else [0]


def tiles(height: int, width: int, tile: int) -> Iterator[tuple[int, int]]:
    """The (x, y) of the top left pixel of each tile, row by row."""
    for y in tile_offsets(height, tile):
        for x in tile_offsets(width, tile):
            yield x, y
