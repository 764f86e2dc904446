"""Pictures as arrays, and the key colour: what every pixel outside a car is set to."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from gan_plugin.data.pictures import read_header, read_rgb, read_rgba
from gan_plugin.errors import UserError

Colour = tuple[int, int, int]

# the source document's bright green, section 2
GREEN: Colour = (51, 255, 51)
MANIFEST, SAMPLES, LICENCE = "manifest.jsonl", "samples.json", "LICENCE_NOTE.txt"
# where a build and `cars.py sample` put their pictures, beside what they note of them
PICTURES = ("crops", "cars")
_CHANNELS = {3: "RGB", 4: "RGBA"}


def checked_colour(values: Sequence[int]) -> Colour:
    """`values` as three whole numbers of red, green and blue.

    Raises:
        UserError: they are not three whole numbers from 0 to 255.
    """
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise UserError(
            f"The key colour {tuple(values)} is not three whole numbers from 0 to 255; write (51, 255, 51)."
        )
    return values[0], values[1], values[2]


def noted_key(folder: Path) -> Colour | None:
    """The key colour that a build, or `cars.py sample`, has noted of the pictures in `folder`; None if neither has."""
    try:
        if (folder / MANIFEST).is_file():
            with open(folder / MANIFEST, encoding="utf-8-sig") as lines:
                key = json.loads(next(lines)).get("key")
        else:
            key = json.loads((folder / SAMPLES).read_text(encoding="utf-8")).get("key")
    except (OSError, ValueError, StopIteration, AttributeError):
        key = None
    if key is None and folder.name in PICTURES:
        return noted_key(folder.parent)
    return None if key is None else checked_colour(key)


def read_picture(path: str | os.PathLike, channels: int | None, key: Colour) -> np.ndarray:
    """Read a picture in colours, which may say how opaque it is.

    Args:
        path: of the file.
        channels: 3 or 4; a file with transparency read with 3 is laid over `key`. None takes what the file has.
        key: the key colour.

    Returns:
        (H, W, 3 or 4) uint8.

    Raises:
        UserError: the file is missing or does not decode, or has not enough channels.
    """
    if read_header(path).transparent:
        return lay_over(read_rgba(path), key) if channels == 3 else read_rgba(path)
    if channels == 4:
        raise UserError(
            f"The picture {path} has 3 channels where 4 are asked for; build the crops with MODE rgba_crop, or train "
            "on 3 channels."
        )
    return read_rgb(path)


def lay_over(pixels: np.ndarray, key: Colour) -> np.ndarray:
    """An RGBA picture (H, W, 4) on a plain ground of colour `key`: (H, W, 3) uint8."""
    share = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * share + np.asarray(key, np.float32) * (1 - share)).astype(np.uint8)


def pad_to_square(pixels: np.ndarray, key: Colour) -> np.ndarray:
    """Centre (H, W, C) uint8 in a square of its longer side; the margin is `key`, transparent where C is 4."""
    height, width, channels = pixels.shape
    side = max(height, width)
    square = np.empty((side, side, channels), np.uint8)
    square[:] = (*key, 0)[:channels]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, C) uint8 to `size` (height, width) with a triangle filter as wide as the reduction.

    The filter has no negative lobes: Lanczos and bicubic ones leave a ring along the border to the key colour, which
    keying then takes for a part of the car. Channels are filtered alike, so that a picture on the key colour and its
    alpha channel still fit each other: C = alpha * car + (1 - alpha) * key.
    """
    planes = [Image.fromarray(np.ascontiguousarray(pixels[..., channel])) for channel in range(pixels.shape[2])]
    layers = [np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(layers, axis=-1)


def on_key(pixels: np.ndarray, key: Colour) -> np.ndarray:
    """An RGBA picture whose colours are already those over `key`, its alpha channel kept: (H, W, 4) uint8."""
    return np.concatenate([lay_over(pixels, key), pixels[..., 3:]], axis=-1)


def channel_names(channels: int) -> str:
    """ "RGB" or "RGBA".

    Raises:
        UserError: `channels` is neither 3 nor 4.
    """
    if channels not in _CHANNELS:
        raise UserError(f"A crop has 3 channels (RGB) or 4 (RGBA), not {channels}; set it to one of them.")
    return _CHANNELS[channels]
