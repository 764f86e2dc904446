"""From a data set in any known format to what training reads, in seven stages that are kept (thesis 4.2)."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coigan.choices import ENCODINGS, STAGES
from coigan.data.convert import convert
from coigan.data.images import write_png
from coigan.data.line_sets import ORIGIN, PRINT, LineSet, coco_content, write_json, write_line_set
from coigan.data.objects import counts_of, measure, write_objects, write_reports
from coigan.data.regions import Encoding, Region, to_record
from coigan.data.sources import open_source
from coigan.data.split import groups_of, near_duplicates, split, split_report
from coigan.data.stages import PREPARED, Stages, acquire
from gan_plugin.data.parallel import parallel_map
from gan_plugin.errors import UserError


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


PARTS = ("train", "test")


@dataclass(frozen=True)
class PrepareOptions:
    """How a data set is prepared.

    Attributes:
        tile: side of the square tiles.
        train_share: of the images; the thesis has a half.
        seed: of the split.
        least_area: objects of fewer pixels give no cut-out, and are counted; they stay in the annotations.
        black: a grey value below it is black, and a training tile with more than `most_black` of it is left out.
        most_black: share of a tile's pixels.
        format: see `open_source`.
        images: of COCO the folder of pictures.
        classes: names of those that are kept, in the order of the mask channels; () for all.
        encoding: "rle", exact, or "polygons" with holes.
        keep_every: of a polygon with more than 25 points keep each so many-th.
        split_mode: see `split`.
        group, group_within: what shows the same thing and stays in one part, see `groups_of`; "" for nothing.
        workers: processes, -1 for one a core.
        toy_count, toy_seed, toy_size: of the source "toy"; the size is (height, width).
    """

    tile: int = 256
    train_share: float = 0.5
    seed: int = 42
    least_area: int = 1
    black: int = 10
    most_black: float = 0.1
    format: str = "auto"
    images: str = ""
    classes: tuple[str, ...] = ()
    encoding: Encoding = "rle"
    keep_every: int = 1
    split_mode: str = "exact"
    group: str = ""
    group_within: int = 0
    workers: int = -1
    toy_count: int = 120
    toy_seed: int = 0
    toy_size: tuple[int, int] = (256, 1600)

    def __post_init__(self) -> None:
        if not 0 < self.train_share < 1:
            raise UserError(f"The share of training images is {self.train_share}; choose one between 0 and 1.")
        if self.encoding not in ENCODINGS or self.keep_every < 1 or self.tile < 1:
            raise UserError(
                f"The encoding is {' or '.join(ENCODINGS)}, keep_every and tile are 1 or more; not {self.encoding!r}, "
                f"{self.keep_every} and {self.tile}."
            )
        if self.group_within and not self.group:
            raise UserError("--group-within joins neighbouring groups of --group; name what these are.")


def prepare(
    source: str | Path, out: str | Path, options: PrepareOptions, force: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Write the prepared data set `out`; stages that are there, unchanged and undamaged are kept.

    It has converted/ (whole images), split/{train,test}/ (records that share its pictures), objects/<class>/ (cut-outs
    of the training images), base/, train/ and test/ (tiles; base has the defect-free ones of train), each a line set
    with its reports or annotations.json, and prepared.json.

    Args:
        source: see `acquire`.
        out: absent, empty, or a data set that was prepared before.
        options: a change of one builds again what depends on it.
        force: stages to build again in any case.

    Returns:
        What prepared.json holds: classes, options, counts of all kinds, each class's share in the training part, the
        split's errors; and, only here, "stages" with what was done.

    Raises:
        UserError: the source is damaged, a class has no object, or `out` holds something else. Of a source that cannot
            be used at all, no folder is made.
    """
    unknown = [name for name in force if name not in STAGES]
    if unknown:
        raise UserError(f"There is no stage {unknown[0]!r}; use {', '.join(STAGES)}.")
    root = Path(out)
    ours = (root / PREPARED).is_file() or (root / "stages").is_dir() or any(root.glob("*.part"))
    if root.exists() and (not root.is_dir() or any(root.iterdir()) and not ours):
        raise UserError(f"{root} holds other files; name another folder.")
    stages = Stages(root, force)
    there, before = root.exists(), ours
    try:
        raw = acquire(stages, str(source), (options.toy_count, options.toy_seed, options.toy_size))
        # it says that all is whole, so it goes before something is built
        (root / PREPARED).unlink(missing_ok=True)
        _convert_and_split(stages, raw, options)
    except BaseException:
        if not before:
            _clear(root, there)
        raise
    small = _cut_out(stages, options)
    _cut_tiles(stages, options)
    content = _content(root, options, small)
    write_json(root / PREPARED, content)
    return {**content, "stages": stages.done}


def _clear(root: Path, keep: bool) -> None:
    """Remove what a first preparation has left that came no further than looking at its source."""
    if {path.name for path in root.glob("*")} <= {"stages"}:
        shutil.rmtree(root / "stages", ignore_errors=True)
        if not keep and root.is_dir():
            root.rmdir()


def _convert_and_split(stages: Stages, raw: Path, options: PrepareOptions) -> None:
    def converted(part: Path) -> None:
        folder = part / "converted"
        source = open_source(raw, options.format, options.images)
        convert(source, folder, options.classes, options.encoding, options.keep_every, options.workers)
        report = write_reports(LineSet(folder), folder / "reports", options.workers)
        for name, found in report["classes"].items():
            if not found["objects"]:
                raise UserError(
                    f"The class {name} has no object in {raw}; leave it out with --classes, or add its masks (a folder "
                    "of pictures without defects is called free, good or ok)."
                )

    stages.run("convert", ["converted"], _chosen(options, "format images classes encoding keep_every"), converted)

    def parted(part: Path) -> None:
        lines = LineSet(stages.root / "converted")
        where, grouping = "../../converted/data", (options.group, options.group_within)
        write_split(lines, part / "split", _ratios(options), options.split_mode, options.seed, where, *grouping)

    settings = _chosen(options, "train_share seed split_mode group group_within")
    if Path(options.group).is_file():
        settings["groups"] = hashlib.sha256(Path(options.group).read_bytes()).hexdigest()
    stages.run("split", ["split"], settings, parted)


def _chosen(options: PrepareOptions, keys: str) -> dict[str, Any]:
    return {key: getattr(options, key) for key in keys.split()}


def write_split(
    lines: LineSet,
    folder: Path,
    ratios: dict[str, float],
    mode: str,
    seed: int,
    images: str,
    group: str = "",
    within: int = 0,
) -> dict[str, Any]:
    """Write a line set for each part, all with the pictures of `lines`, their reports, and params.json.

    Args:
        lines: the whole.
        folder: gets a folder for each part.
        ratios, mode, seed: see `split`.
        images: the folder of the pictures, seen from the folder of a part.
        group, within: see `groups_of`; "" lets each image go by itself.

    Returns:
        The split's report with what was grouped, and near-duplicates of which one lies in another part, also in
        params.json.

    Raises:
        UserError: see `split` and `groups_of`.
    """
    counts = counts_of(measure(lines), len(lines.classes))
    records = list(lines.store)
    names = [str(record.get(ORIGIN, record["img"])) for record in records]
    groups, said = groups_of(names, group, within) if group else (None, "")
    parts = split(counts, ratios, mode, seed, groups=groups)
    for place, name in enumerate(ratios):
        own = (records[int(number)] for number in np.flatnonzero(parts == place))
        write_line_set(folder / name, own, lines.classes, images)
        write_reports(LineSet(folder / name), folder / name / "reports")
    prints = [bytes.fromhex(record[PRINT]) for record in records if PRINT in record]
    torn = [(a, b) for a, b in near_duplicates(prints) if parts[a] != parts[b]] if len(prints) == len(records) else []
    report = split_report(counts, parts, ratios) | {
        "groups": said,
        "near_duplicates_in_two_parts": [[names[a], names[b]] for a, b in torn],
    }
    content = {"ratios": ratios, "mode": mode, "seed": seed, "classes": list(lines.classes), **report}
    write_json(folder / "params.json", content)
    return content


def _ratios(options: PrepareOptions) -> dict[str, float]:
    return dict(zip(PARTS, (options.train_share, 1 - options.train_share), strict=True))


def _cut_out(stages: Stages, options: PrepareOptions) -> int:
    """The stage `objects`; returns how many objects of the training images were too small."""
    root = stages.root

    def build(part: Path) -> None:
        lines = LineSet(root / "split" / "train")
        for number in range(len(lines.classes)):
            write_objects(part / "objects" / str(number), _objects(lines, number, options.least_area))

    stages.run("objects", ["objects"], {"least_area": options.least_area}, build)
    rows = measure(LineSet(root / "split" / "train"))
    return sum(area < options.least_area for row in rows for own in row["areas"] for area in own)


def _objects(lines: LineSet, label: int, least: int) -> Iterator[tuple[str, np.ndarray, Region]]:
    for record in lines.store:
        own = [region for region in lines.regions(record) if region.label == label and region.area >= least]
        if own:
            pixels = lines.image(record)
            for place, region in enumerate(own):
                yield f"{Path(record['img']).stem}_{place}", pixels, region


def _cut_tiles(stages: Stages, options: PrepareOptions) -> None:
    root = stages.root
    black = BlackFilter(options.black, options.most_black)
    parameters = {"tile": options.tile, "black": options.black, "most_black": options.most_black}

    def base(part: Path) -> None:
        train = LineSet(root / "split" / "train")
        write_tiles(train, part / "base", options.tile, black, only_clean=True, workers=options.workers)

    def tiles(part: Path) -> None:
        # the test part stands for what is met in use, so nothing is left out there
        for name, chosen in zip(PARTS, (black, None), strict=True):
            write_tiles(LineSet(root / "split" / name), part / name, options.tile, chosen, workers=options.workers)

    stages.run("base", ["base"], parameters, base)
    stages.run("tiles", list(PARTS), parameters, tiles)


def _content(root: Path, options: PrepareOptions, small: int) -> dict[str, Any]:
    lines = LineSet(root / "converted")
    report = json.loads((root / "split" / "params.json").read_text(encoding="utf-8"))
    totals = np.sum([part["objects"] for part in report["parts"].values()], axis=0)
    train = report["parts"]["train"]["objects"]
    kept = {key: value for key, value in asdict(options).items() if key != "workers"}
    return {
        "classes": list(lines.classes),
        "options": kept,
        "images": {name: report["parts"][name]["images"] for name in PARTS},
        "tiles": {kind: len(LineSet(root / kind)) for kind in ("base", *PARTS)},
        "objects": totals.tolist(),
        "share_in_train": [round(int(own) / max(1, int(all_)), 4) for own, all_ in zip(train, totals, strict=True)],
        "largest_split_error_points": report["largest_error_points"],
        "groups": report["groups"],
        "near_duplicates_in_two_parts": report["near_duplicates_in_two_parts"],
        "masks": json.loads((root / "converted/conversion.json").read_text(encoding="utf-8"))["masks"],
        "left_out_as_too_small": small,
        "left_out_as_black": _too_black(root, options.tile),
    }


def _too_black(root: Path, side: int) -> int:
    """How many tiles of the training images are not in train/."""
    count = 0
    for record in LineSet(root / "split" / "train").store:
        height, width = record["size"]
        count += len(tile_offsets(height, side)) * len(tile_offsets(width, side))
    return count - len(LineSet(root / "train"))
