"""One self-contained HTML page about a data set: prepared, annotated images of any format, or cut-out objects."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coigan.data.convert import open_any
from coigan.data.line_sets import LineSet
from coigan.data.objects import (
    ObjectStore,
    brief,
    brief_of_objects,
    is_object_store,
    measure,
    write_object_reports,
    write_statistics,
)
from coigan.data.placer import Placer
from coigan.data.stages import PREPARED, Prepared, open_prepared
from coigan.visualization import pictures
from coigan.visualization.charts import Section, bars, class_charts, histogram, photo, scatter, write_page
from coigan.visualization.loading import loading_sections
from gan_plugin.visualization.curves import Curve


def write_data_report(
    data: str | Path,
    path: str | Path,
    seed: int = 0,
    kind: str = "auto",
    images: str = "",
    workers: int = 1,
    numbers: str | Path = "",
) -> Path:
    """Write the report of `data` to the HTML file `path`.

    Args:
        data: a prepared data set, any line set, a set of cut-out objects, or what `open_source` opens.
        path: of the report; its folder is made if need be.
        seed: of the examples.
        kind, images: see `open_source`.
        workers: processes that measure, -1 for one a core.
        numbers: a folder that gets the numbers as JSON, brief_report.json and raw_report.json; "" for none.

    Returns:
        `path`.

    Raises:
        UserError: `data` is none of these, is damaged, or a report cannot be written.
    """
    root, target = Path(data), Path(path)
    if is_object_store(root):
        return write_object_page(root, target, seed, numbers)
    prepared = open_prepared(root) if (root / PREPARED).is_file() else None
    with tempfile.TemporaryDirectory() as scratch:
        lines = open_any(root, Path(scratch), kind, images, workers)
        rows = measure(lines, workers)
        report = brief(rows, lines.classes)
        if numbers:
            write_statistics(Path(numbers), rows, lines.classes)
        charts = class_charts(rows, lines.classes)
        sections = [_examples(lines, rows, seed)]
        if prepared:
            charts.insert(0, _split_bars(prepared))
            stores = [ObjectStore(prepared.objects(label)) for label in range(len(prepared.classes))]
            for store, name in zip(stores, prepared.classes, strict=True):
                charts += object_charts(store, f"Cut-outs of class {name}") if len(store) else []
            sections += _preparation(prepared, stores, lines, rows, seed)
    intro = (
        f"{report['images']} images, {report['images_with_objects']} with defects and "
        f"{report['images_without_objects']} without; {report['objects']} objects."
    )
    return write_page(target, root.resolve().name, intro, charts, sections, report)


def _split_bars(prepared: Prepared) -> Curve:
    content = json.loads((prepared.root / "split/params.json").read_text(encoding="utf-8"))
    groups = {name: part["objects"] for name, part in content["parts"].items()}
    return bars("The split: objects by class", groups, prepared.classes, "objects")


def _examples(lines: LineSet, rows: Sequence[dict[str, Any]], seed: int) -> Section:
    rng = np.random.default_rng(seed)
    section = Section("Annotated images", "Outline and box of each object, one colour a class.")
    for label, name in enumerate(lines.classes):
        holding = [number for number, row in enumerate(rows) if row["counts"][label]]
        for number in rng.permutation(holding)[:2]:
            record = lines.store[int(number)]
            picture = pictures.outlined(lines.image(record), lines.regions(record))
            section.pictures.append(photo(picture, f"{Path(record['img']).name}, chosen for class {name}"))
    return section


def _preparation(
    prepared: Prepared, stores: Sequence[ObjectStore], lines: LineSet, rows: Sequence[dict[str, Any]], seed: int
) -> list[Section]:
    fullest = lines.store[max(range(len(rows)), key=lambda number: sum(rows[number]["counts"]))]
    tiled = pictures.tiled(lines.image(fullest), prepared.tile)
    borders = "Borders of neighbouring tiles in two colours, drawn a little inside of them."
    cuts = [
        cut_out_section(store, f"class {name}", label, seed)
        for label, (store, name) in enumerate(zip(stores, prepared.classes, strict=True))
    ]
    sections = [
        _extraction(prepared, seed),
        *cuts,
        Section(
            "Tiles",
            f"Squares of {prepared.tile} pixels that overlap a little and leave no pixel out.",
            [photo(tiled, borders)],
        ),
    ]
    if prepared.tiles("base") and any(len(store) for store in stores):
        sections += loading_sections(prepared, Placer(stores, prepared.tile), seed)
    return sections


def _extraction(prepared: Prepared, seed: int) -> Section:
    """A training image and what it gives to the sets of objects (figure 4.7)."""
    lines = LineSet(prepared.root / "split" / "train")
    section = Section(
        "From an image to the sets of objects",
        "A training image, and below it what it gives to the set of each class: the box of each object, its last row "
        "and column included.",
    )
    best, regions = max(
        ((record, lines.regions(record)) for record in lines.store),
        key=lambda pair: (len({region.label for region in pair[1]}), min(len(pair[1]), 8)),
        default=(None, []),
    )
    if best is None or not regions:
        return section
    image = lines.image(best)
    section.pictures.append(photo(pictures.outlined(image, regions), f"{best['img']}: {len(regions)} objects"))
    for label, name in enumerate(lines.classes):
        cuts = [pictures.cropped(image, region) for region in regions if region.label == label]
        if cuts:
            caption = f"class {name}, into objects/{label}: {len(cuts)}"
            section.pictures.append(photo(pictures.side_by_side(cuts), caption))
    return section


_SHOWN, _SHOWN_ON_ITS_OWN_PAGE = 6, 60
_AREA_BINS = 100


def object_charts(store: ObjectStore, name: str) -> list[Curve | None]:
    """Height against width, and the areas in 100 bins."""
    rows = store.measured()
    shapes = np.array([(width, height) for _, height, width, _ in rows]).reshape(-1, 2)
    return [
        scatter(f"{name}: shapes of the cut-outs", {name: shapes}, "width in pixels", "height in pixels", log=False),
        histogram(f"{name}: areas", [row[3] for row in rows], "pixels", bins=_AREA_BINS),
    ]


def cut_out_section(store: ObjectStore, name: str, label: int, seed: int, shown: int = _SHOWN) -> Section:
    """Some of the objects, in a random order; bare masks in white on black."""
    text = "Each beside itself with all but the object under the colour of its class (0.8 opaque)."
    section = Section(f"Cut-out objects of {name}", text, wide=False)
    for number in np.random.default_rng([seed, label]).permutation(len(store))[:shown]:
        cut = store[int(number)]
        height, width = cut.mask.shape
        picture = pictures.grey(cut.mask) if cut.pixels is None else pictures.covered(cut, label)
        section.pictures.append(photo(picture, f"{cut.key}: {width}x{height}, {int(cut.mask.sum())} pixels"))
    return section


def write_object_page(folder: Path, path: Path, seed: int, numbers: str | Path = "") -> Path:
    """Write the page of the object store in `folder`; see `write_data_report` for the rest.

    Raises:
        UserError: a record or a picture is damaged, or a report cannot be written.
    """
    store = ObjectStore(folder)
    rows = store.measured()
    report = brief_of_objects(rows)
    if numbers:
        write_object_reports(Path(numbers), rows)
    intro = f"{len(rows)} cut-out objects."
    for key in ("height", "width", "area"):
        if report[key]:
            least, most, mean, deviation = (report[key][part] for part in ("min", "max", "mean", "std"))
            intro += f" {key.capitalize()} from {least:g} to {most:g}, mean {mean:.1f}, deviation {deviation:.1f}."
    name = folder.resolve().name
    label = store.label() or 0
    section = cut_out_section(store, f"set {name}", label, seed, _SHOWN_ON_ITS_OWN_PAGE)
    return write_page(path, name, intro, object_charts(store, f"Set {name}"), [section])
