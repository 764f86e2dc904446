"""HTML files from templates, and pictures as part of them."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from gan_plugin.errors import as_user_error
from gan_plugin.files import write_whole

from .curves import Curve

_HERE = Path(__file__).parent
# "src" (a data URI), "alt" and "caption"
Embedded = Mapping[str, str]


def template(name: str, folders: Sequence[Path] = (), digits: int = 2) -> Template:
    """The template `name` of `folders` or this one.

    Its filter `number` turns what is not finite into n/a, and leaves `digits` decimals where it is not told otherwise.
    """
    environment = Environment(loader=FileSystemLoader([*folders, _HERE]), autoescape=True, undefined=StrictUndefined)
    environment.filters["number"] = partial(number, digits=digits)
    return environment.get_template(name)


def number(value: float | None, sign: bool = False, digits: int = 2) -> str:
    """`digits` decimals, or "n/a" for what is not defined; with `sign` always + or −."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return signed(value, digits) if sign else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """`digits` decimals after + or −, a minus sign of the width of the plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def save_page(page: str, target: Path) -> Path:
    """Write `page` to `target`, whose folder is made if need be; returns `target`.

    Raises:
        UserError: it cannot be written.
    """
    with as_user_error(f"The report {target} cannot be written", "choose another path", OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, page)
    return target


def embed(content: bytes, media_type: str, alt: str, caption: str) -> dict[str, str]:
    """A picture file as what a template needs of it."""
    return {"src": data_uri(content, media_type), "alt": alt, "caption": caption}


def data_uri(content: bytes, media_type: str) -> str:
    """A file as the value of an attribute such as src."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def photo(pixels: np.ndarray, alt: str, caption: str) -> dict[str, str]:
    """(H, W, 3) uint8 RGB as a JPEG."""
    return embed(jpeg(pixels), "image/jpeg", alt, caption)


def lossless(pixels: np.ndarray, alt: str, caption: str) -> dict[str, str]:
    """(H, W, 3 or 4) uint8 as a PNG, for small pictures that are enlarged on the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return embed(buffer.getvalue(), "image/png", alt, caption)


def jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def drawing(curve: Curve, caption: str = "") -> dict[str, str]:
    """A curve as SVG; its title stands in for a caption."""
    return embed(curve.svg.encode(), "image/svg+xml", curve.alt, caption or curve.title)
