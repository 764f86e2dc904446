"""A page about a set of cut-out objects: numbers, shapes, areas, and the objects themselves."""

from pathlib import Path

import numpy as np

from coigan.data.object_statistics import brief_of_objects, write_object_reports
from coigan.data.objects import ObjectStore
from gan_plugin.visualization.curves import Curve

from . import pictures
from .charts import histogram, scatter
from .page import Section, photo, write_page

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
