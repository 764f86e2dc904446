"""Pictures in files and folders of them: which there are, how they are written, and under which names.

`gan_plugin.data.pictures` reads them.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

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


def safe_path(name: str) -> PurePosixPath:
    """`name`, which comes from data and may be absolute or lead upwards, as a path that stays below a folder.

    Raises:
        UserError: nothing of it is left.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts or "\0" in name:
        raise UserError(f"{name!r} is no name of a file; rename the picture.")
    return PurePosixPath(*parts)


def place_copy(source: Path, target: Path) -> None:
    """The same bytes under another name, without a second copy of them where the file system allows that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def whole_folder(out: str | Path) -> Iterator[Path]:
    """A folder to fill within the block, which then becomes `out`; if the block fails, nothing of it is left.

    Args:
        out: does not exist yet or is empty.

    Raises:
        UserError: `out` holds files, or cannot be written.
    """
    target = Path(os.path.abspath(out))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{out} holds files; name another folder.")
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if target.is_dir():
            target.rmdir()
        part.replace(target)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{out} cannot be written ({reason}); free some disk space or name another folder.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
