"""What a data set holds: cut-out objects, each with its mask (thesis 4.2.4), and statistics (thesis 3.1.1).

Statistics are a row an image or object, and sums; both are written as raw_report.json and brief_report.json.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from coigan.data.images import write_png
from coigan.data.line_sets import LINES, PARAMS, LineSet, LineStore, LineWriter, write_json
from coigan.data.regions import Region, from_record, to_record
from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

BRIEF, RAW = "brief_report.json", "raw_report.json"
_BINS = 10


class _Measure:
    """Counts, areas, aspect ratios and overlaps of one image; can be sent to other processes."""

    def __init__(self, lines: LineSet) -> None:
        self._lines = lines

    def __call__(self, number: int) -> dict[str, Any]:
        record = self._lines.store[number]
        regions = self._lines.regions(record)
        classes = len(self._lines.classes)
        areas: list[list[int]] = [[] for _ in range(classes)]
        aspects: list[list[float]] = [[] for _ in range(classes)]
        for region in regions:
            height, width = region.mask.shape
            areas[region.label].append(region.area)
            aspects[region.label].append(width / height)
        row = {"img": record["img"], "counts": [len(own) for own in areas], "areas": areas, "aspects": aspects}
        present = sorted({region.label for region in regions})
        if len(present) > 1:
            row["overlaps"] = self._overlaps(record, regions, present)
        return row

    def _overlaps(self, record: dict[str, Any], regions: list, present: list[int]) -> list[list[int]]:
        height, width = record["size"]
        masks = {label: np.zeros((height, width), bool) for label in present}
        for region in regions:
            masks[region.label] |= region.painted(height, width)
        pairs = [(a, b, int((masks[a] & masks[b]).sum())) for a, b in combinations(present, 2)]
        return [list(pair) for pair in pairs if pair[2]]


def measure(lines: LineSet, workers: int = 1) -> list[dict[str, Any]]:
    """A row for each image: img, counts by class, and by class the areas (pixels) and aspect ratios (width / height).

    Where objects of two classes overlap, "overlaps" holds [class, class, pixels].

    Raises:
        UserError: a record is damaged.
    """
    return list(parallel_map(_Measure(lines), range(len(lines)), workers))


def counts_of(rows: Sequence[dict[str, Any]], classes: int) -> np.ndarray:
    """(N, classes) objects; what the splitter needs."""
    return np.array([row["counts"] for row in rows], int).reshape(len(rows), classes)


def brief(rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Sums over all images; histograms are (counts, edges)."""
    counts = counts_of(rows, len(classes))
    totals = counts.sum(1)
    area_of_image = np.array([sum(sum(own) for own in row["areas"]) for row in rows])
    overlap: dict[str, int] = {}
    for row in rows:
        for first, second, pixels in row.get("overlaps", ()):
            key = f"{classes[first]} & {classes[second]}"
            overlap[key] = overlap.get(key, 0) + pixels
    report: dict[str, Any] = {
        "images": len(rows),
        "images_with_objects": int((totals > 0).sum()),
        "images_without_objects": int((totals == 0).sum()),
        "objects": int(totals.sum()),
        "objects_per_image": summary(totals),
        "area_per_image": summary(area_of_image),
        "overlap_pixels": overlap,
        "classes": {},
    }
    for label, name in enumerate(classes):
        areas = np.array([area for row in rows for area in row["areas"][label]])
        aspects = np.array([aspect for row in rows for aspect in row["aspects"][label]])
        report["classes"][name] = {
            "objects": int(counts[:, label].sum()),
            "images": int((counts[:, label] > 0).sum()),
            "area": int(areas.sum()),
            "objects_per_image": summary(counts[:, label]),
            "area_per_object": summary(areas),
            "aspect_per_object": summary(aspects),
        }
    return report


def write_reports(lines: LineSet, folder: Path, workers: int = 1) -> dict[str, Any]:
    """Write both reports into `folder`, which is made if need be; returns the brief one.

    Raises:
        UserError: a record is damaged, or the folder cannot be written.
    """
    return write_statistics(folder, measure(lines, workers), lines.classes)


def write_statistics(folder: Path, rows: Sequence[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """As `write_reports`, of what `measure` has returned."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RAW, {"classes": list(classes), "rows": list(rows)})
    report = brief(rows, classes)
    write_json(folder / BRIEF, report)
    return report


def summary(values: np.ndarray, bins: int = _BINS) -> dict[str, Any] | None:
    """Least, greatest, mean, deviation and histogram (counts, edges); None if there are no values."""
    if not len(values):
        return None
    counts, edges = np.histogram(values, bins=bins)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "histogram": [counts.tolist(), edges.tolist()],
    }


_AREA_BINS = 100
# name of a cut-out, its height and width, and the area of its mask in pixels
Row = tuple[str, int, int, int]


def brief_of_objects(rows: Sequence[Row]) -> dict[str, Any]:
    """Least, greatest, mean and deviation of height, width and area; histograms are (counts, edges), of areas 100."""
    numbers = np.array([row[1:] for row in rows], int).reshape(len(rows), 3)
    return {
        "objects": len(rows),
        "height": summary(numbers[:, 0]),
        "width": summary(numbers[:, 1]),
        "area": summary(numbers[:, 2], _AREA_BINS),
    }


def write_object_reports(folder: Path, rows: Sequence[Row]) -> None:
    """Write both reports into `folder`, which is made if need be.

    Raises:
        UserError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    columns = ("key", "height", "width", "area")
    write_json(folder / RAW, {"rows": [dict(zip(columns, row, strict=True)) for row in rows]})
    write_json(folder / BRIEF, brief_of_objects(rows))


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
