"""The picture of a scene."""

from pathlib import Path

import numpy as np
from PIL import Image

from gan_plugin.data.pictures import image_problem
from gan_plugin.errors import UserError

_MODES = ("RGB", "L", "P", "RGBA", "CMYK")


def read_scene(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """The picture at `path` as (H, W, 3) uint8, RGB.

    Args:
        path: of the picture.
        shape: height and width according to its annotation.

    Raises:
        UserError: it is missing, broken, of another size, or no 8-bit picture.
    """
    if problem := image_problem(path):
        raise UserError(problem)
    with Image.open(path) as image:
        if image.mode not in _MODES:
            raise UserError(f"The image {path} is of mode {image.mode}, not an 8-bit colour picture; convert it.")
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape[:2] != shape:
        raise UserError(
            f"The image {path} is {pixels.shape[1]}x{pixels.shape[0]} pixels but its annotation says "
            f"{shape[1]}x{shape[0]}; use the image that was annotated."
        )
    return pixels
