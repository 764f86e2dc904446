"""One self-contained HTML page about a line set or a whole prepared data set."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import gan_plugin.visualization
from coigan.data.images import encode_png
from coigan.data.line_sets import LineSet
from coigan.data.noise import MaskNoise
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placer
from coigan.data.prepared import PREPARED, Prepared, open_prepared
from coigan.data.samples import SampleSource
from coigan.data.statistics import brief, measure
from gan_plugin.engine.rng import preserved_rng
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.visualization.curves import Curve

from . import pictures
from .charts import bars, histogram, scatter

_EXAMPLES = 6
_DRAWS = 12


def write_data_report(data: str | Path, path: str | Path, seed: int = 0) -> Path:
    """Write the report of `data` to the HTML file `path`.

    Args:
        data: a prepared data set, or any line set.
        path: of the report; its folder is made if need be.
        seed: of the examples.

    Returns:
        `path`.

    Raises:
        UserError: `data` is neither, is damaged, or the report cannot be written.
    """
    root, target = Path(data), Path(path)
    prepared = open_prepared(root) if (root / PREPARED).is_file() else None
    lines = LineSet(root / "converted" if prepared else root)
    rows = measure(lines)
    charts = _charts(rows, lines.classes)
    sections = [_examples(lines, rows, seed)]
    if prepared:
        charts.insert(0, _split_bars(prepared))
        sections += _preparation(prepared, lines, rows, seed)
    page = _template().render(
        title=root.resolve().name,
        report=brief(rows, lines.classes),
        charts=[_picture(chart.svg.encode(), "svg+xml", chart.alt, chart.title) for chart in charts if chart],
        sections=[section for section in sections if section["pictures"]],
        folder=root.name,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The report {target} cannot be written ({error.strerror}); choose another path.") from error
    write_whole(target, lambda out: out.write(page.encode()), "Choose another path, or free some disk space.")
    return target


def _charts(rows: Sequence[dict[str, Any]], classes: tuple[str, ...]) -> list[Curve | None]:
    counts = np.array([row["counts"] for row in rows]).reshape(len(rows), len(classes))
    with_objects = int((counts.sum(1) > 0).sum())
    charts: list[Curve | None] = [
        bars("Images", {"images": [with_objects, len(rows) - with_objects]}, ["with defects", "without"], "images"),
        bars("Objects by class", {"objects": counts.sum(0).tolist()}, classes, "objects"),
        histogram("Objects in an image that has any", counts.sum(1)[counts.sum(1) > 0].tolist(), "objects"),
    ]
    areas = {name: [a for row in rows for a in row["areas"][label]] for label, name in enumerate(classes)}
    aspects = {name: [a for row in rows for a in row["aspects"][label]] for label, name in enumerate(classes)}
    points = {name: np.array(list(zip(areas[name], aspects[name], strict=True))) for name in classes}
    charts.append(scatter("Size and shape of the objects", points, "area in pixels", "width / height"))
    for name in classes:
        charts.append(histogram(f"Class {name}: area", areas[name], "pixels", log=True))
        charts.append(histogram(f"Class {name}: aspect ratio", aspects[name], "width / height", log=True))
    return charts


def _split_bars(prepared: Prepared) -> Curve:
    content = json.loads((prepared.root / "split/params.json").read_text(encoding="utf-8"))
    groups = {name: part["objects"] for name, part in content["parts"].items()}
    return bars("The split: objects by class", groups, prepared.classes, "objects")


def _examples(lines: LineSet, rows: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shown = []
    for label, name in enumerate(lines.classes):
        holding = [number for number, row in enumerate(rows) if row["counts"][label]]
        for number in rng.permutation(holding)[:2]:
            record = lines.store[int(number)]
            picture = pictures.outlined(lines.image(record), lines.regions(record))
            shown.append(_photo(picture, f"{record['img']}, chosen for class {name}"))
    text = "Outline and box of each object, one colour a class."
    return {"title": "Annotated images", "text": text, "pictures": shown, "wide": True}


def _preparation(prepared: Prepared, lines: LineSet, rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    stores = [ObjectStore(prepared.objects(label)) for label in range(len(prepared.classes))]
    cuts = []
    for label, store in enumerate(stores):
        for number in rng.permutation(len(store))[:_EXAMPLES]:
            cut = store[int(number)]
            cuts.append(_photo(pictures.covered(cut, label), f"class {prepared.classes[label]}: {cut.key}"))
    fullest = max(range(len(rows)), key=lambda number: sum(rows[number]["counts"]))
    tiled = pictures.tiled(lines.image(lines.store[fullest]), prepared.tile)
    sections = [
        {
            "title": "Objects cut out of the training images",
            "text": "Each beside itself with all but the object dimmed: what is placed, and what is not.",
            "pictures": cuts,
            "wide": False,
        },
        {
            "title": "Tiles",
            "text": f"Squares of {prepared.tile} pixels that overlap a little and leave no pixel out.",
            "pictures": [_photo(tiled, "borders of neighbouring tiles in two colours, drawn a little inside of them")],
            "wide": True,
        },
    ]
    placer = Placer(stores, prepared.tile)
    if prepared.tiles("base") and any(len(store) for store in stores):
        sections += _loading(prepared, placer, seed)
    return sections


def _loading(prepared: Prepared, placer: Placer, seed: int) -> list[dict[str, Any]]:
    # the fullest of a few, because most hold one object
    drawn = [placer.place(np.random.default_rng([seed, number])) for number in range(_DRAWS)]
    placement = max(drawn, key=lambda one: len(one.objects))
    noise = MaskNoise(scales=(1, 8, 16), smooth=min(41, prepared.tile // 6))
    with preserved_rng(seed=seed):
        source = SampleSource(prepared.tiles("base"), prepared.tiles("train"), placer, noise)
        layout = pictures.sample_layout(source.draw())
    steps = pictures.noise_steps(placement.masks[placement.objects[0][0]], noise, seed)
    return [
        {
            "title": "Objects placed",
            "text": "Above: a canvas a class, black where there is no object. Below: the masks.",
            "pictures": [_photo(pictures.placed(placement), f"classes {', '.join(prepared.classes)}")],
            "wide": True,
        },
        {
            "title": "Noise in a mask",
            "text": "From left: the mask, its softened form, noise summed over scales 1, 8 and 16 (stretched to be "
            "seen), and the noisy mask that the generator gets.",
            "pictures": [_photo(steps, "noise of mean 0.5 and deviation 0.08")],
            "wide": True,
        },
        {
            "title": "A training sample",
            "text": "The channels of each tensor from left to right.",
            "pictures": [_photo(row, name) for name, row in layout.items()],
            "wide": True,
        },
    ]


def _photo(pixels: np.ndarray, caption: str) -> dict[str, str]:
    return _picture(encode_png(np.ascontiguousarray(pixels)), "png", caption, caption)


def _picture(content: bytes, kind: str, alt: str, caption: str) -> dict[str, str]:
    data = base64.b64encode(content).decode()
    return {"src": f"data:image/{kind};base64,{data}", "alt": alt, "caption": caption}


def _template() -> Any:
    folders = [Path(__file__).parent, Path(gan_plugin.visualization.__file__).parent]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("data.html.j2")
