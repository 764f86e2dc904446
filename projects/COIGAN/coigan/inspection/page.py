"""The HTML page that all reports on data are written as: one file, pictures within."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coigan.data.images import encode_png
from gan_plugin.visualization.curves import Curve
from gan_plugin.visualization.page import drawing, embed, save_page, template

_HERE = Path(__file__).parent


@dataclass
class Section:
    """A heading, a text, and pictures with captions.

    Attributes:
        wide: one picture a row, as large as it is; else several, small ones.
    """

    title: str
    text: str
    pictures: list[dict[str, str]] = field(default_factory=list)
    wide: bool = True


def photo(pixels: np.ndarray, caption: str) -> dict[str, str]:
    """(H, W, 3) uint8 RGB as a picture of a section."""
    return embed(encode_png(np.ascontiguousarray(pixels)), "image/png", caption, caption)


def write_page(
    path: Path,
    title: str,
    intro: str,
    charts: Sequence[Curve | None],
    sections: Sequence[Section],
    report: dict[str, Any] | None = None,
) -> Path:
    """Write the page; its folder is made if need be.

    Args:
        path: of the file.
        title: name of the data set.
        intro: a paragraph.
        charts: those that are None are left out.
        sections: those without pictures are left out.
        report: of `statistics.brief`, whose classes become a table.

    Returns:
        `path`.

    Raises:
        UserError: it cannot be written.
    """
    page = template("data.html.j2", [_HERE]).render(
        title=title,
        intro=intro,
        report=report,
        charts=[drawing(chart) for chart in charts if chart],
        sections=[section for section in sections if section.pictures],
    )
    return save_page(page, path)
