"""Whatever a user names as a data set, as a line set (thesis 4.2.2); and changed copies of one.

Masks are exact, image files untouched. A copy leaves out empty images, has another size, or larger masks.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from coigan.data.images import place_copy, safe_path, whole_folder, write_png
from coigan.data.line_sets import LINES, ORIGIN, OTHERS, PRINT, LineSet, coco_content, write_json, write_line_set
from coigan.data.regions import Encoding, Region, from_record, tight, to_record
from coigan.data.sources import FORMATS, Source, label_map, open_source, recognised, relabelled
from coigan.data.split import fingerprint, near_duplicates, write_groups
from coigan.data.stages import PREPARED
from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


@dataclass(frozen=True)
class Conversion:
    """What converts one image; other processes get a copy.

    Attributes:
        source: of images and objects.
        pictures: the folder that gets the image files; None leaves them where they are.
        classes: names of those that are kept, in their order.
        encoding, keep_every: see `regions.to_record`.
    """

    source: Source
    pictures: Path | None
    classes: tuple[str, ...]
    encoding: Encoding = "rle"
    keep_every: int = 1

    def __call__(self, number: int) -> tuple[dict[str, Any], dict[str, int], dict[str, int]]:
        """The record of image `number`; pixels of masks that there were and that are recorded wrongly; see `told`."""
        path, origin = self.source.images[number], safe_path(self.source.name(number))
        pixels = read_rgb(path)
        height, width = pixels.shape[:2]
        self.source.told.clear()
        found = self.source.regions(number, height, width)
        new_label = label_map(self.source.classes, self.classes)
        regions = relabelled(found, new_label)
        entries = [to_record(region, height, width, self.encoding, self.keep_every) for region in regions]
        wrong = 0
        if self.encoding == "polygons":
            for region, entry in zip(regions, entries, strict=True):
                back = from_record(entry, height, width)
                painted = np.zeros((height, width), bool) if back is None else back.painted(height, width)
                wrong += int((painted ^ region.painted(height, width)).sum())
        name = str(path.resolve())
        if self.pictures is not None:
            name = "_".join(origin.parts)
            place_copy(path, self.pictures / name)
        others = [to_record(region, height, width) for region in found if region.label not in new_label]
        counts = {"mask_pixels": sum(region.area for region in regions), "wrong_pixels": wrong}
        record = {"img": name, "size": [height, width], "polygons": entries, ORIGIN: str(origin)}
        if self.pictures is not None:
            record[PRINT] = fingerprint(pixels).hex()
        return record | ({OTHERS: others} if others else {}), counts, dict(self.source.told)


def convert(
    source: Source,
    folder: Path,
    classes: tuple[str, ...] = (),
    encoding: Encoding = "rle",
    keep_every: int = 1,
    workers: int = -1,
    copy: bool = True,
) -> None:
    """Write `source` as a line set, its pictures in data/, and conversion.json with the approximation error.

    With `copy`, near_duplicates.csv lists the pictures that look alike, in groups.

    Args:
        source: of images and objects.
        folder: made if need be.
        classes: names to keep, in that order; () for all.
        encoding, keep_every: see `regions.to_record`.
        workers: processes, -1 for one a core.
        copy: whether the pictures come along; else the records name the source's own files.

    Raises:
        UserError: an image or an annotation is damaged; the names of two images differ in nothing but their ending.
    """
    # without their endings, because tiles and cut-outs are called after them
    names = Counter(
        "_".join(safe_path(source.name(number)).with_suffix("").parts) for number in range(len(source.images))
    )
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"Two images would be called {twice[0]}; rename one of them.")
    if copy:
        (folder / "data").mkdir(parents=True, exist_ok=True)
    task = Conversion(source, folder / "data" if copy else None, tuple(classes or source.classes), encoding, keep_every)
    label_map(source.classes, task.classes)
    totals = {"images": 0, "objects": 0, "mask_pixels": 0, "wrong_pixels": 0}
    told: Counter[str] = Counter()
    prints = {}

    def records() -> Any:
        for record, counts, understood in parallel_map(task, range(len(source.images)), workers):
            told.update(understood)
            if copy:
                prints[record[ORIGIN]] = bytes.fromhex(record[PRINT])
            totals["images"] += 1
            totals["objects"] += len(record["polygons"])
            for key, value in counts.items():
                totals[key] += value
            yield record

    write_line_set(folder, records(), task.classes, "data", encoding=encoding, keep_every=keep_every)
    share = totals["wrong_pixels"] / max(1, totals["mask_pixels"])
    write_json(folder / "conversion.json", {**totals, "approximation_error": share, "masks": dict(told)})
    if copy:
        write_groups(folder / "near_duplicates.csv", list(prints), near_duplicates(list(prints.values())))


def open_any(path: str | Path, scratch: Path, kind: str = "auto", images: str = "", workers: int = 1) -> LineSet:
    """The annotated images at `path`.

    Args:
        path: a prepared data set, whose whole images are meant; a line set; or whatever `open_source` opens.
        scratch: an empty folder, which gets the records of the last, that name the pictures where they are; it has to
            last as long as the set is read.
        kind, images: see `open_source`.
        workers: processes that read the last, -1 for one a core.

    Raises:
        UserError: there is no data set, or it is damaged.
    """
    root = Path(path)
    if (root / PREPARED).is_file():
        return LineSet(root / "converted")
    if (root / LINES).exists() or (kind == FORMATS[0] and not recognised(root)):
        return LineSet(root)
    convert(open_source(root, kind, images), scratch, workers=workers, copy=False)
    return LineSet(scratch)


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
