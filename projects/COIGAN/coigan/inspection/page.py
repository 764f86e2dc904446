"""The HTML page that all reports on data are written as: one file, pictures within."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import gan_plugin.visualization
from coigan.data.images import encode_png
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.visualization.curves import Curve


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
    return _picture(encode_png(np.ascontiguousarray(pixels)), "png", caption, caption)


def drawing(curve: Curve) -> dict[str, str]:
    """An SVG as a picture of a section."""
    return _picture(curve.svg.encode(), "svg+xml", curve.alt, curve.title)


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
    page = _template().render(
        title=title,
        intro=intro,
        report=report,
        charts=[drawing(chart) for chart in charts if chart],
        sections=[section for section in sections if section.pictures],
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The report {path} cannot be written ({error.strerror}); choose another path.") from error
    write_whole(path, lambda out: out.write(page.encode()), "Choose another path, or free some disk space.")
    return path


def _picture(content: bytes, kind: str, alt: str, caption: str) -> dict[str, str]:
    data = base64.b64encode(content).decode()
    return {"src": f"data:image/{kind};base64,{data}", "alt": alt, "caption": caption}


def _template() -> Any:
    folders = [Path(__file__).parent, Path(gan_plugin.visualization.__file__).parent]
    environment = Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("data.html.j2")
