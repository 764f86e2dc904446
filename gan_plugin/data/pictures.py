"""Pictures in files, examined and read in one convention: the one of Detectron2's dataset mapper.

A picture is turned as its EXIF orientation says, and brought to 8-bit RGB. What Pillow and Detectron2 would turn into
something else than the picture is refused: values of more than 8 bits, which become white or black, and TIFF files with
an orientation, which are turned twice.
"""

import os
import re
from collections.abc import Iterable
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from gan_plugin.data.findings import Findings, Grade, Kind, Problem
from gan_plugin.errors import UserError

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's 8-bit modes that it converts to RGB; the others (I, F, I;16, ...) are cut off at 0 and 255 on the way
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB")
# of a decoder that drops the lower half of 16 bits; BMP's "BGR;16" has 16 bits for all three channels
_DEEP = re.compile(r"(?!BGR).*;16[BLNS]?")
# where a PNG file may hold an orientation; Pillow decodes the whole picture to look behind its pixels
_PNG_SIGNS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")
_PNG_LATE_SIGNS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_PNG_TAIL = 1 << 16


MISSING = Kind(Grade.REFUSED, "the image does not exist", "put it there or take it out of the data set")
UNDECODABLE = Kind(Grade.REFUSED, "the image cannot be decoded", "download or export it again")
DEEP = Kind(
    Grade.REFUSED,
    "the image has more than 8 bits a value, of which Detectron2 would make white, black or too dark a picture",
    "bring it to 8 bits, with the range of values that matters to you",
)
OTHER_SIZE = Kind(
    Grade.REFUSED, "the image is of another size than its annotations say", "use the image that was annotated"
)
TURNED = Kind(
    Grade.REFUSED,
    "the image, turned by its EXIF orientation as Detectron2 does it, is of another size than its annotations say",
    "annotate it as a viewer shows it, or save it upright and without the orientation",
)
TURNED_TWICE = Kind(
    Grade.REFUSED,
    "the image is a TIFF file with an orientation, by which Pillow turns it and then Detectron2 once more",
    "save it upright and without the orientation",
)


class Header(NamedTuple):
    """What a picture says of itself before its pixels are decoded.

    Attributes:
        width: in pixels, as Detectron2 reads it.
        height: likewise.
        orientation: of EXIF, 1 (upright) to 8.
        mode: Pillow's, of the pixels.
        transparent: whether it says of its pixels how opaque they are.
        depth: what it holds, if that is more than 8 bits a value; else "".
        form: Pillow's name of the file format.
    """

    width: int
    height: int
    orientation: int
    mode: str
    transparent: bool
    depth: str
    form: str


def header_problem(path: str | os.PathLike, width: int | None = None, height: int | None = None) -> Problem | None:
    """What is wrong with a picture as far as its header tells; takes a fraction of a millisecond.

    Args:
        path: of the file.
        width: that its annotations say, in pixels as Detectron2 reads it; None if they say nothing.
        height: likewise.
    """
    found = header_of(path, width, height)
    return found if isinstance(found, Problem) else None


def header_of(path: str | os.PathLike, width: int | None = None, height: int | None = None) -> Header | Problem:
    """The header of a picture, or what is wrong with it; arguments as of `header_problem`."""
    found = _examined(path, width, height)
    return found if isinstance(found, Problem) else _too_deep(path, found) or found


def examine_pictures(pictures: Iterable[tuple[str | os.PathLike, int | None, int | None]], findings: Findings) -> None:
    """Add what `header_problem` says of each (path, width, height)."""
    findings.extend(problem for picture in pictures if (problem := header_problem(*picture)))


def decode_problem(path: str | os.PathLike, width: int | None = None, height: int | None = None) -> Problem | None:
    """What is wrong with a picture, its pixels included; see `header_problem`."""
    return header_problem(path, width, height) or _undecoded(path)


def image_problem(path: str | os.PathLike) -> str | None:
    """What keeps an image file of any kind, such as a label map, from being decoded; None if it decodes."""
    problem = _undecoded(path)
    return problem.sentence if problem else None


def read_header(path: str | os.PathLike) -> Header:
    """The header of a picture.

    Raises:
        UserError: the file is missing, is no picture, or is one that Detectron2 does not read rightly.
    """
    return _sound(path, _examined(path))


def read_rgb(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture as Detectron2 reads it in the format RGB; what is transparent gets its stored colour.

    Args:
        path: of the file.
        size: width and height in pixels that its annotations say.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: the file is missing, does not decode, has another size, or is no 8-bit picture.
    """
    return _read(path, "RGB", size)


def read_rgba(path: str | os.PathLike, size: tuple[int, int] | None = None) -> np.ndarray:
    """A picture and how opaque it is, (H, W, 4) uint8: 255 everywhere if the file does not say; see `read_rgb`."""
    return _read(path, "RGBA", size)


def read_upright(path: str | os.PathLike) -> Image.Image:
    """An image file of any kind, such as a mask, in its own mode, turned as its EXIF orientation says.

    Raises:
        UserError: as of `read_rgb`; but more than 8 bits are refused of colours only, whose lower bits Pillow drops.
    """
    return _decoded(path, _examined(path), deep=True)


def _read(path: str | os.PathLike, mode: str, size: tuple[int, int] | None) -> np.ndarray:
    return np.array(_decoded(path, _examined(path, *(size or ()))).convert(mode))


def _decoded(path: str | os.PathLike, found: Header | Problem, deep: bool = False) -> Image.Image:
    header = _sound(path, found, deep)
    turn = _TURNS.get(header.orientation)
    try:
        with Image.open(path) as image:
            image.load()
            return image if turn is None else image.transpose(turn)
    except Exception as error:
        raise UserError(_undecodable(path, error).sentence) from error


def _sound(path: str | os.PathLike, found: Header | Problem, deep: bool = False) -> Header:
    if isinstance(found, Problem):
        raise UserError(found.sentence)
    problem = _too_deep(path, found)
    if problem and not (deep and found.mode not in _MODES):
        raise UserError(problem.sentence)
    return found


def _examined(path: str | os.PathLike, width: int | None = None, height: int | None = None) -> Header | Problem:
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            header = _header(image, file)
    except Exception as error:
        return _undecodable(path, error)
    return _wrong_size(path, header, width, height) or header


def _undecoded(path: str | os.PathLike) -> Problem | None:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error
        return _undecodable(path, error)
    return None


def _header(image: Image.Image, file: IO[bytes]) -> Header:
    width, height = image.size
    orientation = _orientation(image, file)
    if orientation > 4:
        width, height = height, width
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info
    return Header(width, height, orientation, image.mode, transparent, _depth(image), image.format or "")


def _orientation(image: Image.Image, file: IO[bytes]) -> int:
    if image.format == "PNG" and not any(sign in image.info for sign in _PNG_SIGNS):
        place = file.tell()
        file.seek(max(place, file.seek(0, os.SEEK_END) - _PNG_TAIL))
        tail = file.read()
        file.seek(place)
        if not any(sign in tail for sign in _PNG_LATE_SIGNS):
            return 1
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Detectron2 takes a picture with broken EXIF as it is stored
        return 1
    return int(orientation) if orientation in _TURNS else 1


def _depth(image: Image.Image) -> str:
    if image.mode not in _MODES:
        names = {"F": "floating point values", "I": "32-bit or 16-bit values"}
        return names.get(image.mode, "16-bit values" if image.mode.startswith("I;16") else f"mode {image.mode}")
    for tile in getattr(image, "tile", ()):
        raw = tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]
        if isinstance(raw, str) and _DEEP.fullmatch(raw):
            return "16-bit values"
    return ""


def _wrong_size(path: str | os.PathLike, header: Header, width: int | None, height: int | None) -> Problem | None:
    found, said = (header.width, header.height), (width or header.width, height or header.height)
    orientation = f"orientation {header.orientation}"
    if header.orientation > 1 and header.form == "TIFF":
        return _problem(TURNED_TWICE, path, orientation)
    if found == said:
        return None
    if header.orientation == 1:
        return _problem(OTHER_SIZE, path, f"{_by(found)} pixels, not {_by(said)}")
    stored = found[::-1] if header.orientation > 4 else found
    return _problem(TURNED, path, f"{orientation}: {_by(found)} pixels, stored as {_by(stored)}, not {_by(said)}")


def _too_deep(path: str | os.PathLike, header: Header) -> Problem | None:
    return _problem(DEEP, path, header.depth) if header.depth else None


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _undecodable(path: str | os.PathLike, error: Exception) -> Problem:
    if not os.path.isfile(path):
        return Problem(MISSING, os.fspath(path))
    unknown = isinstance(error, Image.UnidentifiedImageError)
    return _problem(UNDECODABLE, path, "it is of no known format" if unknown else str(error))


def _problem(kind: Kind, path: str | os.PathLike, detail: str) -> Problem:
    return Problem(kind, os.fspath(path), detail=f" ({detail})")
