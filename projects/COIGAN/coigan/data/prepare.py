"""From Severstal's format to what training reads: tiles, objects and the split (thesis 4.2)."""

import csv
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from . import rle
from .images import read_rgb, write_png
from .objects import write_objects
from .regions import Region, components
from .split import fair_split
from .tiling import tiles

_logger = logging.getLogger(__name__)
PARAMS = "prepared.json"


@dataclass(frozen=True)
class PrepareOptions:
    """How a data set is prepared.

    Attributes:
        tile: side of the square tiles.
        train_share: of the images; the thesis has a half.
        seed: of the split.
        least_area: objects of fewer pixels are left out, and counted.
        black: a grey value below it is black, and a training tile with more than `most_black` of it is left out.
        most_black: share of a tile's pixels.
    """

    tile: int = 256
    train_share: float = 0.5
    seed: int = 42
    least_area: int = 16
    black: int = 10
    most_black: float = 0.1


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        root: its folder.
        classes: names in the order of the mask channels.
        tile: side of the tiles.
    """

    root: Path
    classes: tuple[str, ...]
    tile: int

    def tiles(self, kind: str) -> list[Path]:
        """The tiles of "base" (training, without defects), "train" or "test", sorted."""
        return sorted((self.root / kind).glob("*.png"))

    def objects(self, number: int) -> Path:
        """The object store of class `number`, of the training images."""
        return self.root / "objects" / str(number)


def open_prepared(root: str | Path) -> Prepared:
    """The prepared data set in `root`.

    Raises:
        UserError: there is none.
    """
    file = Path(root) / PARAMS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Prepared(Path(root), tuple(content["classes"]), content["options"]["tile"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root} holds no prepared data set; make one with inpaint.py prepare.") from error


def read_severstal(source: Path) -> dict[str, list[tuple[int, str]]]:
    """Image name -> (class index, run lengths) of each of its rows in train.csv; images without a row have none.

    Raises:
        UserError: the folder is not in Severstal's format; the sentence names the line.
    """
    folder = source / "train_images"
    images: dict[str, list[tuple[int, str]]] = {path.name: [] for path in sorted(folder.glob("*"))}
    if not images:
        raise UserError(f"{folder} holds no images; unpack Severstal's training images there.")
    try:
        with open(source / "train.csv", newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                if not row.get("EncodedPixels"):
                    continue
                if row["ImageId"] not in images:
                    raise UserError(f"{source}/train.csv, line {line}: {row['ImageId']} is not in train_images.")
                images[row["ImageId"]].append((int(row["ClassId"]) - 1, row["EncodedPixels"]))
    except OSError as error:
        raise UserError(f"{source}/train.csv cannot be read ({error.strerror}).") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}/train.csv has no columns ImageId, ClassId, EncodedPixels ({error}).") from error
    return images


def prepare(source: str | Path, out: str | Path, options: PrepareOptions) -> dict[str, Any]:
    """Write the prepared data set `out`: base/, train/, test/ with tiles, objects/<class>/, prepared.json.

    Returns:
        What prepared.json holds: classes, options, counts of all kinds and each class's share in the training part.

    Raises:
        UserError: the source is damaged, or `out` holds something else.
    """
    source, target = Path(source), Path(out)
    if target.exists() and any(target.iterdir()) and not (target / PARAMS).is_file():
        raise UserError(f"{target} holds other files; name another folder.")
    rows = read_severstal(source)
    names = sorted(rows)
    classes = 1 + max((number for pairs in rows.values() for number, _ in pairs), default=0)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for kind in ("base", "train", "test"):
        (part / kind).mkdir(parents=True)
    found = {name: _regions(source, name, rows[name], options.least_area) for name in names}
    counts = np.array([[sum(r.label == c for r in found[name][0]) for c in range(classes)] for name in names])
    in_train = fair_split(counts, options.train_share, options.seed)
    for name, train in zip(names, in_train, strict=True):
        _write_tiles(part, source, name, found[name][0], bool(train), options)
    for number in range(classes):
        _write_class(part / "objects" / str(number), source, found, names, in_train, number)
    totals = np.maximum(counts.sum(0), 1)
    content = {
        "classes": [str(number) for number in range(classes)],
        "options": asdict(options),
        "images": {"train": int(in_train.sum()), "test": int((~in_train).sum())},
        "tiles": {kind: len(list((part / kind).glob("*.png"))) for kind in ("base", "train", "test")},
        "objects": counts.sum(0).tolist(),
        "share_in_train": (counts[in_train].sum(0) / totals).round(4).tolist(),
        "left_out_as_too_small": sum(small for _, small in found.values()),
    }
    text = json.dumps(content, indent=1)
    write_whole(part / PARAMS, lambda file: file.write(text.encode()), "Free some disk space.")
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    return content


def _regions(source: Path, name: str, rows: list[tuple[int, str]], least: int) -> tuple[list[Region], int]:
    """The objects of an image that are large enough, and how many are not."""
    if not rows:
        return [], 0
    height, width = read_rgb(source / "train_images" / name).shape[:2]
    regions: list[Region] = []
    for number, text in rows:
        try:
            regions += components(rle.decode(text, height, width), number)
        except ValueError as error:
            raise UserError(f"{source}/train.csv, {name}, class {number + 1}: {error}.") from error
    large = [region for region in regions if region.area >= least]
    return large, len(regions) - len(large)


def _write_tiles(
    out: Path, source: Path, name: str, regions: list[Region], train: bool, options: PrepareOptions
) -> None:
    pixels = read_rgb(source / "train_images" / name)
    side = options.tile
    for x, y in tiles(*pixels.shape[:2], side):
        tile = np.ascontiguousarray(pixels[y : y + side, x : x + side])
        file = f"{Path(name).stem}_{y:05d}_{x:05d}.png"
        if not train:
            write_png(out / "test" / file, tile)
        elif (tile.mean(2) < options.black).mean() <= options.most_black:
            write_png(out / "train" / file, tile)
            if not any(region.cut(x, y, side, side) for region in regions):
                write_png(out / "base" / file, tile)


def _write_class(
    folder: Path,
    source: Path,
    found: Mapping[str, tuple[list[Region], int]],
    names: list[str],
    in_train: np.ndarray,
    number: int,
) -> None:
    objects = []
    for name, train in zip(names, in_train, strict=True):
        own = [region for region in found[name][0] if region.label == number] if train else []
        if own:
            pixels = read_rgb(source / "train_images" / name)
            objects += [(f"{Path(name).stem}_{place}", *_cropped(pixels, region)) for place, region in enumerate(own)]
    write_objects(folder, objects)


def _cropped(pixels: np.ndarray, region: Region) -> tuple[np.ndarray, Region]:
    """The object's own pixels, so that whole images need not be kept."""
    x0, y0, x1, y1 = region.box
    return pixels[y0 : y1 + 1, x0 : x1 + 1].copy(), Region(region.label, 0, 0, region.mask)
