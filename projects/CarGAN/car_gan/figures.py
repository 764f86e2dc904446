"""Pictures inside an HTML page."""

import io

import numpy as np
from PIL import Image

from gan_plugin.visualization.page import embed


def inline_picture(pixels: np.ndarray, alt: str, caption: str) -> dict[str, str]:
    """A picture for a template: "src" as a data URI without loss, "alt" and "caption".

    Args:
        pixels: (H, W, 3 or 4) uint8.
        alt: what it shows, for those who do not see it.
        caption: what a stranger should know of it.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return embed(buffer.getvalue(), "image/png", alt, caption)
