"""Pictures whose objects are pixels in image files beside them: which files belong together, and what is in them."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gan_plugin.errors import UserError

from .findings import Findings, Grade, Kind, Problem
from .masks import Part, parts_of, read_mask
from .pictures import Header, header_of, read_upright

# what an image file's name ends with; pixels of the last ones are as they were saved
LOSSY = (".jpg", ".jpeg", ".webp")
SUFFIXES = (*LOSSY, ".png", ".bmp", ".tif", ".tiff")
# what the name of a file of objects may have behind that of its picture, and the picture's own endings
_ENDINGS = ("mask", "masks", "cp_masks", "label", "labels", "gt", "seg", "instances", "instance", "segmentation")
_PICTURE_ENDINGS = ("img", "image", "raw")

NO_PICTURE = Kind(Grade.REFUSED, "there is no picture", "put one there, or name another folder")
PICTURES = Kind(Grade.REFUSED, "there are several pictures where one belongs", "keep one of them")
SEVERAL_FILES = Kind(Grade.REFUSED, "the picture has several files of objects", "keep one of them")
UNCLEAR = Kind(
    Grade.REFUSED, "it is not clear which of the files is the picture", "let the name of the mask end in _mask"
)
NO_OBJECTS = Kind(Grade.BAD, "the picture has no file of objects", "add it, black where there is none")
NO_PICTURE_OF = Kind(Grade.BAD, "the file of objects has no picture", "add it or remove the file")
UNREADABLE_MASK = Kind(Grade.BAD, "the mask cannot be used", "save it again")
MASK_SIZE = Kind(Grade.BAD, "the mask is of another size than its picture", "export one of them again")
EMPTY_MASK = Kind(Grade.BAD, "the mask has no pixel inside", "draw it anew or remove the file")
NO_LABELS = Kind(
    Grade.BAD, "this is no label image, which has one whole number a pixel, 0 for the background", "save it as one"
)
LOSSY_LABELS = Kind(Grade.BAD, "the compression has changed the numbers of this label image", "save it as PNG or TIFF")


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
        width: of the picture in pixels; 0 if picture or objects cannot be read at all.
        height: likewise.
        parts: the objects.
        problems: what is wrong; objects that have one are not among them.
    """

    width: int
    height: int
    parts: list[Part]
    problems: list[Problem]


def mask_folders(root: Path, findings: Findings, category: str = "object") -> list[Pair]:
    """The pictures of a data set that has a file for each object.

    Either <id>/images/<picture> and <id>/masks/<files>, or images/<name>.<suffix> and masks/<name>/<files>.
    """
    pairs = []
    if (root / "images").is_dir():
        pairs = [
            Pair(path, tuple(images_in(root / "masks" / path.stem)), category) for path in images_in(root / "images")
        ]
        names = {pair.picture.stem for pair in pairs}
        for folder in _folders_in(root / "masks"):
            if folder.name not in names:
                findings.add(NO_PICTURE_OF, folder)
    else:
        for folder in _folders_in(root):
            pictures = images_in(folder / "images")
            if len(pictures) == 1:
                pairs.append(Pair(pictures[0], tuple(images_in(folder / "masks")), category))
            else:
                findings.add(PICTURES if pictures else NO_PICTURE, folder / "images")
    if not pairs and not findings.refused:
        findings.add(NO_PICTURE, root)
    return pairs


def label_images(
    images: Path, labels: Path, findings: Findings, category: str = "object", bare: bool = False
) -> list[Pair]:
    """The pictures in a folder and the label images of the same names in another or the same one.

    The names may end in what is usual, as in a.png and a_mask.png, or a_img.png and a_masks.tif.

    Args:
        images, labels: the folders.
        findings: gets what does not fit together.
        category: the name of the objects' class.
        bare: whether pictures without a file of objects are taken, as pairs without files.
    """
    pictures, truths = images_in(images), images_in(labels)
    if images.resolve() == labels.resolve():
        pictures, truths = _parted(pictures, findings)
    return _matched(pictures, truths, category, findings, bare)


def class_folders(root: Path, findings: Findings) -> list[Pair]:
    """The pictures below the folders of classes, each with its mask beside it, as in a.jpg and a.png or a_mask.png."""
    pairs = []
    for folder in _folders_in(root):
        for place in sorted({path.parent for path in folder.rglob("*") if _is_image(path)}):
            pairs += _matched(*_parted(images_in(place), findings), folder.name, findings)
    if not pairs and not findings.refused:
        findings.add(NO_PICTURE, root, detail=", below folders that are named like the classes")
    return pairs


def objects_of_files(pair: Pair) -> Objects:
    """The objects of a picture that has a file for each of them."""
    header = header_of(pair.picture)
    if isinstance(header, Problem):
        return Objects(0, 0, [], [header])
    parts, problems = [], []
    for file in pair.files:
        mask = _mask(file, header)
        if isinstance(mask, Problem):
            problems.append(mask)
        elif not mask.any():
            problems.append(Problem(EMPTY_MASK, str(file)))
        else:
            parts += parts_of(mask)
    return Objects(header.width, header.height, parts, problems)


def objects_of_mask(pair: Pair, *, whole: bool = False) -> Objects:
    """The connected parts of a picture's mask, with 8 neighbours; with `whole` the mask is one object."""
    header = header_of(pair.picture)
    found = header if isinstance(header, Problem) else _mask(pair.files[0], header)
    if isinstance(found, Problem) or isinstance(header, Problem):
        return Objects(0, 0, [], [found])  # type: ignore[list-item]
    labels = found if whole else cv2.connectedComponents(found.astype(np.uint8), connectivity=8)[1]
    return Objects(header.width, header.height, parts_of(labels), [])


def objects_of_labels(pair: Pair) -> Objects:
    """The objects of a label image, one for each number above 0, in their order."""
    header = header_of(pair.picture)
    found = header if isinstance(header, Problem) else _labels(pair.files[0], header)
    if isinstance(found, Problem) or isinstance(header, Problem):
        return Objects(0, 0, [], [found])  # type: ignore[list-item]
    return Objects(header.width, header.height, parts_of(found), [])


def images_in(folder: Path) -> list[Path]:
    """The image files in a folder, by name; hidden ones are left out."""
    return sorted(path for path in folder.iterdir() if _is_image(path)) if folder.is_dir() else []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _folders_in(root: Path) -> list[Path]:
    found = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _name_of(path: Path, endings: Iterable[str]) -> str:
    """The name of a file without suffix and without one of the endings."""
    for ending in sorted(endings, key=len, reverse=True):
        for dash in "_-. ":
            if path.stem.lower().endswith(dash + ending) and len(path.stem) > len(dash + ending):
                return path.stem[: -len(dash + ending)]
    return path.stem


def _parted(files: list[Path], findings: Findings) -> tuple[list[Path], list[Path]]:
    """The pictures among the files of a folder, and the files of objects."""
    truths = [path for path in files if _name_of(path, _ENDINGS) != path.stem]
    pictures = [path for path in files if path not in truths]
    by_name: dict[str, list[Path]] = {}
    for path in pictures:
        by_name.setdefault(path.stem, []).append(path)
    for same in by_name.values():
        lossless = [path for path in same if path.suffix.lower() not in LOSSY]
        if len(same) == 2 and len(lossless) == 1:
            truths += lossless
        elif len(same) > 1:
            findings.add(UNCLEAR, same[0], detail=f" ({', '.join(path.name for path in same)})")
    return [path for path in pictures if path not in set(truths)], truths


def _matched(
    pictures: list[Path], truths: list[Path], category: str, findings: Findings, bare: bool = False
) -> list[Pair]:
    of_name: dict[str, list[Path]] = {}
    for path in truths:
        of_name.setdefault(_name_of(path, _ENDINGS), []).append(path)
    # a picture may be called x_label.png itself
    own = {path.stem: [path] for path in truths}
    pairs, used = [], set()
    for picture in pictures:
        names = (picture.stem, _name_of(picture, _PICTURE_ENDINGS))
        files = own.get(picture.stem) or next((of_name[name] for name in names if name in of_name), [])
        used.update(files)
        if len(files) == 1 or bare and not files:
            pairs.append(Pair(picture, tuple(files), category))
        elif files:
            findings.add(SEVERAL_FILES, picture, detail=f" ({', '.join(path.name for path in files)})")
        else:
            findings.add(NO_OBJECTS, picture)
    for path in truths:
        if path not in used:
            findings.add(NO_PICTURE_OF, path)
    return pairs


def _mask(file: Path, header: Header) -> np.ndarray | Problem:
    try:
        mask = read_mask(file)
    except UserError as error:
        return Problem(UNREADABLE_MASK, str(file), detail=f" ({str(error).rstrip('.')})")
    return _of_size(mask, file, header)


def _labels(file: Path, header: Header) -> np.ndarray | Problem:
    if file.suffix.lower() in LOSSY:
        return Problem(LOSSY_LABELS, str(file))
    try:
        labels = np.asarray(read_upright(file))
    except UserError as error:
        return Problem(UNREADABLE_MASK, str(file), detail=f" ({str(error).rstrip('.')})")
    if labels.ndim != 2:
        return Problem(NO_LABELS, str(file), detail=f" (it has {labels.shape[2]} channels)")
    if labels.min() < 0 or not (np.isfinite(labels).all() and (labels == labels.round()).all()):
        return Problem(NO_LABELS, str(file), detail=" (it has negative or broken numbers)")
    return _of_size(labels, file, header)


def _of_size(labels: np.ndarray, file: Path, header: Header) -> np.ndarray | Problem:
    height, width = labels.shape
    if (width, height) == (header.width, header.height):
        return labels
    detail = f" ({width}x{height} pixels, not {header.width}x{header.height})"
    return Problem(MASK_SIZE, str(file), detail=detail)
