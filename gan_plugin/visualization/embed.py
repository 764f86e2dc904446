"""Pictures as part of an HTML file."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from .curves import Curve

# "src" (a data URI), "alt" and "caption"
Embedded = Mapping[str, str]


def embed(content: bytes, media_type: str, alt: str, caption: str) -> dict[str, str]:
    """A picture file as what a template needs of it."""
    return {"src": data_uri(content, media_type), "alt": alt, "caption": caption}


def data_uri(content: bytes, media_type: str) -> str:
    """A file as the value of an attribute such as src."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def photo(pixels: np.ndarray, alt: str, caption: str) -> dict[str, str]:
    """(H, W, 3) uint8 RGB as a JPEG."""
    return embed(jpeg(pixels), "image/jpeg", alt, caption)


def jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def drawing(curve: Curve, caption: str = "") -> dict[str, str]:
    """A curve as SVG; its title stands in for a caption."""
    return embed(curve.svg.encode(), "image/svg+xml", curve.alt, caption or curve.title)
