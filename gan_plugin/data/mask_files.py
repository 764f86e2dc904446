"""Pictures whose objects are pixels in image files beside them: which files belong together, and what is in them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from gan_plugin.errors import UserError

from .findings import Findings, Grade, Kind, Problem
from .masks import read_mask
from .pictures import Header, header_of

# what an image file's name ends with
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

NOT_THERE = Kind(Grade.REFUSED, "the folder does not exist", "name the one that holds the pictures")
NO_PICTURE = Kind(Grade.REFUSED, "there is no picture", "put it there or remove the folder")
PICTURES = Kind(Grade.REFUSED, "there are several pictures where one belongs", "keep one of them")
UNREADABLE_MASK = Kind(Grade.REFUSED, "the mask cannot be used", "save it again")
MASK_SIZE = Kind(Grade.REFUSED, "the mask is of another size than its picture", "export one of them again")
EMPTY_MASK = Kind(Grade.BAD, "the mask has no pixel inside", "draw it anew or remove the file")


class Pair(NamedTuple):
    """A picture and the files that hold its objects.

    Attributes:
        picture: its file.
        files: of its objects; none if it is a picture without.
        category: the name of their class.
    """

    picture: Path
    files: tuple[Path, ...]
    category: str


class Objects(NamedTuple):
    """What is in the files of a `Pair`.

    Attributes:
        width: of the picture in pixels.
        height: likewise.
        masks: (height, width) bool each, with at least one pixel.
        problems: if there are any, the rest is of no use.
    """

    width: int
    height: int
    masks: list[np.ndarray]
    problems: list[Problem]


def images_in(folder: Path) -> list[Path]:
    """The image files in a folder, by name; hidden ones are left out."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def mask_folders(root: Path, findings: Findings, category: str = "object") -> list[Pair]:
    """The pictures of a data set in which each has a folder, <id>/images/<picture> and <id>/masks/<one an object>."""
    pairs = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        pictures = images_in(folder / "images")
        if len(pictures) == 1:
            pairs.append(Pair(pictures[0], tuple(images_in(folder / "masks")), category))
        else:
            findings.add(PICTURES if pictures else NO_PICTURE, folder / "images")
    return pairs


def objects_of_files(pair: Pair) -> Objects:
    """The objects of a picture that has a file for each of them."""
    header = header_of(pair.picture)
    if isinstance(header, Problem):
        return Objects(0, 0, [], [header])
    masks, problems = [], []
    for file in pair.files:
        mask = _mask(file, header)
        if isinstance(mask, Problem):
            problems.append(mask)
        elif not mask.any():
            problems.append(Problem(EMPTY_MASK, str(file)))
        else:
            masks.append(mask)
    return Objects(header.width, header.height, masks, problems)


def _mask(file: Path, header: Header) -> np.ndarray | Problem:
    try:
        mask = read_mask(file)
    except UserError as error:
        return Problem(UNREADABLE_MASK, str(file), detail=f" ({str(error).rstrip('.')})")
    height, width = mask.shape
    if (width, height) != (header.width, header.height):
        detail = f" ({width}x{height} pixels, not {header.width}x{header.height})"
        return Problem(MASK_SIZE, str(file), detail=detail)
    return mask
