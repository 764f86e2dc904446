"""Any source as a line set: exact masks, untouched image files, all losses counted (thesis 4.2.2)."""

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

from .line_sets import OTHERS, write_json, write_line_set
from .regions import Encoding, from_record, to_record
from .sources import Source
from .sources.base import label_map, relabelled


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

    def __call__(self, number: int) -> tuple[dict[str, Any], dict[str, int]]:
        """The record of image `number`, and how many pixels of masks there were and how many are recorded wrongly."""
        path, name = self.source.images[number], self.source.name(number)
        height, width = read_rgb(path).shape[:2]
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
        if self.pictures is None:
            name = str(path.resolve())
        else:
            place_copy(path, self.pictures / name)
        others = [to_record(region, height, width) for region in found if region.label not in new_label]
        counts = {"mask_pixels": sum(region.area for region in regions), "wrong_pixels": wrong}
        record = {"img": name, "size": [height, width], "polygons": entries}
        return record | ({OTHERS: others} if others else {}), counts


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
    names = Counter(Path(source.name(number)).stem for number in range(len(source.images)))
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"Two images would be called {twice[0]}; rename one of them.")
    if copy:
        (folder / "data").mkdir(parents=True, exist_ok=True)
    task = Conversion(source, folder / "data" if copy else None, tuple(classes or source.classes), encoding, keep_every)
    label_map(source.classes, task.classes)
    totals = {"images": 0, "objects": 0, "mask_pixels": 0, "wrong_pixels": 0}

    def records() -> Any:
        for record, counts in parallel_map(task, range(len(source.images)), workers):
            totals["images"] += 1
            totals["objects"] += len(record["polygons"])
            for key, value in counts.items():
                totals[key] += value
            yield record

    write_line_set(folder, records(), task.classes, "data", encoding=encoding, keep_every=keep_every)
    share = totals["wrong_pixels"] / max(1, totals["mask_pixels"])
    write_json(folder / "conversion.json", {**totals, "approximation_error": share})


def place_copy(source: Path, target: Path) -> None:
    """The same bytes under another name, without a second copy of them where the file system allows that."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
