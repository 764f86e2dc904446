"""What an object store holds, in numbers: raw_report.json, a row an object, and brief_report.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .line_sets import write_json
from .statistics import BRIEF, RAW, summary

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
