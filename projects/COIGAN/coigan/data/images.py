"""Pictures in files: which there are, and how they are written; `gan_plugin.data.pictures` reads them."""

from pathlib import Path

import cv2
import numpy as np

from gan_plugin.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def encode_png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB or (H, W) uint8 or uint16 as the bytes of a PNG file."""
    done, encoded = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    if not done:
        raise ValueError(f"no PNG of shape {pixels.shape} and type {pixels.dtype}")
    return encoded.tobytes()


def write_png(path: str | Path, pixels: np.ndarray, compact: bool = False) -> None:
    """Write `pixels` as `encode_png` takes them.

    Args:
        path: of the file.
        pixels: see `encode_png`.
        compact: store one channel where all three are equal, as in pictures of steel; `read_rgb` gives back three. That
            takes a third of the space and about half of the time to read.
    """
    if compact and pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    Path(path).write_bytes(encode_png(pixels))


def images_in(folder: str | Path) -> list[Path]:
    """All pictures in `folder` and below, sorted by path.

    Raises:
        UserError: there is no such folder, or it holds no picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}; name one that holds images.")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)}); name a folder that does.")
    return found
