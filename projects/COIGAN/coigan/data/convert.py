"""Whatever a user names as a data set, as a line set: exact masks, untouched image files (thesis 4.2.2)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.parallel import parallel_map
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

from .images import place_copy, safe_path
from .line_sets import ORIGIN, OTHERS, PRINT, LineSet, write_json, write_line_set
from .line_store import LINES
from .regions import Encoding, from_record, to_record
from .sources import FORMATS, Source, label_map, open_source, recognised, relabelled
from .split import fingerprint, near_duplicates, write_groups
from .stages import PREPARED


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
