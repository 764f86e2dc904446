"""A changed copy of a line set: without empty images, of another size, with larger masks."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from gan_plugin.data.parallel import parallel_map
from gan_plugin.errors import UserError

from .images import place_copy, safe_path, whole_folder, write_png
from .line_sets import ORIGIN, OTHERS, LineSet, coco_content, write_json, write_line_set
from .regions import Region, tight, to_record


@dataclass(frozen=True)
class Changes:
    """What is done to each image, in this order.

    Attributes:
        only_with_objects: leave images without any object out.
        size: (height, width) of the copy, or a factor of both sides of each image; pictures by the mean of the area,
            masks by the nearest pixel. None leaves the size.
        kernel: side of the square that dilates the masks.
        iterations: how often; 0 for not at all.
    """

    only_with_objects: bool = False
    size: tuple[int, int] | float | None = None
    kernel: int = 2
    iterations: int = 0

    def __post_init__(self) -> None:
        least = min(self.size) >= 1 if isinstance(self.size, tuple) else self.size is None or self.size > 0
        if not least or self.kernel < 1 or self.iterations < 0:
            raise UserError("Sizes and the kernel are 1 or more, a scale above 0, iterations 0 or more.")

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the copy of an image of that size."""
        if self.size is None or isinstance(self.size, tuple):
            return self.size or size
        return max(1, round(size[0] * self.size)), max(1, round(size[1] * self.size))


@dataclass(frozen=True)
class _Change:
    """Changes one image; other processes get a copy."""

    lines: LineSet
    folder: Path
    changes: Changes

    def __call__(self, number: int) -> tuple[dict[str, Any] | None, int]:
        """The record, or None for an image that is left out, and how many objects have vanished."""
        record, changes = self.lines.store[number], self.changes
        regions = self.lines.regions(record)
        if changes.only_with_objects and not regions:
            return None, 0
        size = changes.size_of((int(record["size"][0]), int(record["size"][1])))
        source = self.lines.path(record)
        name = _name(record)
        # read in any case, so that a damaged picture is found
        pixels = self.lines.image(record)
        if changes.size is not None:
            name = name.with_suffix(".png")
            pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_png(self.folder / name, pixels)
        else:
            place_copy(source, self.folder / name)
        kept = self._changed(regions, record["size"], size)
        others = self._changed(self.lines.others(record), record["size"], size)
        made = {"img": str(name), "size": list(size), "polygons": kept, **({OTHERS: others} if others else {})}
        return made, len(regions) - len(kept)

    def _changed(self, regions: list[Region], before: tuple[int, int], size: tuple[int, int]) -> list[dict[str, Any]]:
        made = (self._one_changed(region, before, size) for region in regions)
        return [to_record(region, *size) for region in made if region is not None]

    def _one_changed(self, region: Region, before: tuple[int, int], size: tuple[int, int]) -> Region | None:
        painted = region.painted(*before).astype(np.uint8)
        mask = cv2.resize(painted, size[::-1], interpolation=cv2.INTER_NEAREST)
        square = np.ones((self.changes.kernel, self.changes.kernel), np.uint8)
        return tight(cv2.dilate(mask, square, iterations=self.changes.iterations), region.label)


def derive(lines: LineSet, out: str | Path, changes: Changes, workers: int = 1) -> dict[str, int]:
    """Write the changed copy of `lines` as a line set with its pictures beside dataset.jsonl, and annotations.json.

    Pictures keep the sub-folders that they have in the source.

    Args:
        lines: stays as it is.
        out: a folder that does not exist yet or is empty.
        changes: what is done.
        workers: processes, -1 for one a core.

    Returns:
        {"images", "objects", "left_out" images, "vanished" objects, which the new size left without a pixel}; also in
        params.json.

    Raises:
        UserError: `out` holds files or cannot be written, an image is damaged, two have the same name, or none is left.
    """
    stems = Counter(_name(record).with_suffix("") for record in lines.store)
    if twice := [name for name, count in stems.items() if count > 1]:
        raise UserError(f"Two images would be called {twice[0]}; rename one of them.")
    counts = {"images": 0, "objects": 0, "left_out": 0, "vanished": 0}

    def records(change: _Change) -> Iterator[dict[str, Any]]:
        for record, vanished in parallel_map(change, range(len(lines)), workers):
            counts["vanished"] += vanished
            counts["left_out"] += record is None
            if record is not None:
                counts["images"] += 1
                counts["objects"] += len(record["polygons"])
                yield record

    with whole_folder(out) as part:
        made = records(_Change(lines, part, changes))
        write_line_set(part, made, lines.classes, ".", **{**vars(changes), "counts": counts})
        if not counts["images"]:
            raise UserError(f"No image of {lines.folder} has an object, so nothing is left; choose another set.")
        write_json(part / "annotations.json", coco_content(LineSet(part)))
    return counts


def _name(record: Mapping[str, Any]) -> PurePosixPath:
    """Where the copy of a picture goes below the folder."""
    return safe_path(str(record.get(ORIGIN, record["img"])))
