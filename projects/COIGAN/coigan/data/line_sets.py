"""Annotated images as a line store: dataset.jsonl, index, params.json and a folder of pictures.

A record is {"img": file name, "size": [height, width], "polygons": [a region each, see `regions.to_record`]}, and where
there are objects of classes that were left out, also "others" with a region each. A record of whole images has the path
of its picture in the source as "from", and a fingerprint for near-duplicates as "print" (see `split.fingerprint`).
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from .line_store import LineStore, LineWriter
from .regions import Region, from_record, to_coco_rle

PARAMS = "params.json"
OTHERS, ORIGIN, PRINT = "others", "from", "print"
_ADVICE = "Free some disk space, or choose another folder."


class LineSet:
    """The annotated images in a folder, read one record at a time.

    Attributes:
        folder: of the set.
        classes: names; a region's label is an index into them.
        params: what params.json says of how the set was made.
        store: the records.

    Raises:
        UserError: there is no set in the folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.store = LineStore(self.folder)
        try:
            self.params: dict[str, Any] = json.loads((self.folder / PARAMS).read_text(encoding="utf-8"))
            self.classes = tuple(str(name) for name in self.params["classes"])
            self.images = self.folder / self.params["images"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.folder / PARAMS} cannot be read ({error}); prepare this data set again.") from error

    def __len__(self) -> int:
        return len(self.store)

    def path(self, record: Mapping[str, Any]) -> Path:
        """The picture of a record."""
        return self.images / record["img"]

    def image(self, record: Mapping[str, Any]) -> np.ndarray:
        """The picture of a record, (H, W, 3) uint8 RGB.

        Raises:
            UserError: it is missing, does not decode, or has another size than the record says.
        """
        pixels = read_rgb(self.path(record))
        if list(pixels.shape[:2]) != list(record["size"]):
            raise UserError(f"{self.path(record)} has another size than its record; prepare this data set again.")
        return pixels

    def regions(self, record: Mapping[str, Any]) -> list[Region]:
        """The objects of a record.

        Raises:
            UserError: one of them is damaged; the sentence names the line.
        """
        return self._regions(record, "polygons", len(self.classes))

    def others(self, record: Mapping[str, Any]) -> list[Region]:
        """The objects of a record whose classes were left out; of their labels there are no names.

        Raises:
            UserError: as of `regions`.
        """
        return self._regions(record, OTHERS, math.inf) if OTHERS in record else []

    def _regions(self, record: Mapping[str, Any], key: str, classes: float) -> list[Region]:
        try:
            height, width = record["size"]
            found = [from_record(entry, height, width) for entry in record[key]]
            regions = [region for region in found if region is not None]
            for region in regions:
                if not 0 <= region.label < classes:
                    raise ValueError(f"the label {region.label} of {classes} classes")
        except (KeyError, TypeError, ValueError) as error:
            line = next((n for n, other in enumerate(self.store, start=1) if other == record), "?")
            raise UserError(
                f"{self.store.path}, line {line}: the record of {record.get('img')} is damaged "
                f"({type(error).__name__}: {error}); prepare this data set again."
            ) from error
        return regions


def write_line_set(
    folder: Path, records: Iterable[Mapping[str, Any]], classes: tuple[str, ...], images: str, **params: Any
) -> None:
    """Write the records and params.json; the pictures are there or come later.

    Args:
        folder: made if need be.
        records: as described above.
        classes: names of the labels.
        images: the folder of pictures, seen from `folder`.
        params: more to keep about how the set was made.
    """
    count = 0
    with LineWriter(folder) as writer:
        for record in records:
            writer.add(dict(record))
            count += 1
    content = {"classes": list(classes), "images": images, "count": count, **params}
    write_json(folder / PARAMS, content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON that is whole or absent."""
    write_whole_text(path, json.dumps(content, indent=1) + "\n")


def write_whole_text(path: Path, text: str) -> None:
    """Write `text` so that it is whole or absent."""
    write_whole(path, lambda file: file.write(text.encode()), _ADVICE)


def categories_of(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Categories with the ids 1, 2, ..."""
    return [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]


def annotation(key: int, image: int, label: int, mask: np.ndarray, **more: Any) -> dict[str, Any]:
    """One object: `mask` (H, W) bool of the whole image, not empty, as exact run lengths, so with its holes."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "id": key,
        "image_id": image,
        "category_id": label + 1,
        "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": to_coco_rle(mask),
        **more,
    }


def coco_content(lines: LineSet) -> dict[str, Any]:
    """The whole JSON of a line set; image ids count from 1 in the order of its records."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(lines.store, start=1):
        height, width = record["size"]
        images.append({"id": number, "file_name": record["img"], "height": height, "width": width})
        for region in lines.regions(record):
            annotations.append(_of_region(len(annotations) + 1, number, region, height, width))
    return {
        "info": {"description": str(lines.folder.name)},
        "categories": categories_of(lines.classes),
        "images": images,
        "annotations": annotations,
    }


def _of_region(key: int, image: int, region: Region, height: int, width: int) -> dict[str, Any]:
    return annotation(key, image, region.label, region.painted(height, width))
