"""Pictures whose defects are masks in image files beside them, in the layouts that users have.

- images/ and masks/: a mask has its picture's path below them; or masks/<class>/, a folder of masks for each class; or
  masks/<picture>/, a file for each object.
- <class>/: pictures with their masks beside them (a.jpg and a.png, or a.png and a_mask.png) or in a folder of masks.
  Folders that are called free, good, ok and the like hold pictures without defects.
- test/<class>/, ground_truth/<class>/ and train/good/, as MVTec AD has it.
- one folder of pictures with masks beside them: one class.

A picture without a mask is free of defects.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coigan.data.line_sets import LINES
from coigan.data.regions import Region, components
from coigan.data.stages import PREPARED
from gan_plugin.data.findings import Findings
from gan_plugin.data.mask_files import NO_PICTURE_OF, Pair, images_in, label_images
from gan_plugin.data.masks import read_mask
from gan_plugin.data.pictures import examine_pictures
from gan_plugin.errors import UserError

ONE_CLASS = "defect"
# a folder of pictures without defects, and one of masks, by name
_FREE = re.compile(
    r"(.*[\W_])?(free|good|ok|clean|normal|none|negative|background|(no|without|defect)[\W_]?(free|defects?))", re.I
)
_MASKS = re.compile(r"masks?|labels?|gt|ground_?truth|annotations?|segmentations?", re.I)


class _Layout(NamedTuple):
    """Which files belong together.

    Attributes:
        pairs: of pictures and masks, by class; "" is a folder of defect-free pictures. A picture may be in several.
        root: names are paths below it.
        by_folder: whether a picture's folder says what is in it, beside its mask.
    """

    pairs: list[Pair]
    root: Path
    by_folder: bool = False


class MaskSource:
    """An object is a connected part of the masks of a class; see `read_mask` for the forms that one may have.

    A picture that lies in the folders of several classes, byte for byte, is one picture with all of their masks. One
    with an empty mask in the folder of a class is no defect-free one either: there is a defect that nobody has drawn.

    Args:
        folder: in one of the layouts above.

    Attributes:
        told: what was understood of the masks that have been read, in words, with how often.

    Raises:
        UserError: there are no pictures, or masks that belong to none or to several.
    """

    def __init__(self, folder: str | Path) -> None:
        root = Path(folder)
        self.told: Counter[str] = Counter()
        findings = Findings(option="")
        pairs, self._root, self._by_folder = _layout(root, findings)
        findings.conclude()
        if not pairs:
            raise UserError(f"{folder} holds no picture; name a folder that does.")
        masks: dict[Path, list[tuple[str, Path]]] = {}
        for pair in pairs:
            masks.setdefault(pair.picture, []).extend((pair.category, file) for file in pair.files)
        self.images = sorted(masks)
        self._masks = [masks[image] for image in self.images]
        names = sorted({pair.category for pair in pairs} - {""})
        if not names:
            raise UserError(f"{folder} holds no mask; put one beside each picture that has a defect.")
        shared = _prefix(root, names)
        self.classes = tuple(name[len(shared) :] for name in names)
        self._label = {name: label for label, name in enumerate(names)}
        check_pictures(self.images)

    def name(self, number: int) -> str:
        """The path below the folder, or below images/."""
        return self.images[number].relative_to(self._root).as_posix()

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The connected parts of each class's masks.

        Raises:
            UserError: a mask has another size than the picture, or it is not clear what is inside; or it has something
                inside, but lies in a folder of pictures without defects.
        """
        masks: dict[int, np.ndarray] = {}
        undrawn = False
        for name, file in self._masks[number]:
            mask = read_mask(file, self.told)
            if mask.shape != (height, width):
                raise UserError(
                    f"The mask {file} is {mask.shape[1]}x{mask.shape[0]} pixels but its image {width}x{height}; export "
                    "one of them again."
                )
            if not name and mask.any():
                raise UserError(f"{file} has a defect, but lies in a folder of defect-free pictures; move it.")
            if name:
                label = self._label[name]
                masks[label] = masks[label] | mask if label in masks else mask
                undrawn |= self._by_folder and not mask.any()
        found = [region for label, mask in masks.items() for region in components(mask, label)]
        if undrawn and not found:
            self.told["an empty mask in the folder of a class, so no base image"] += 1
            # of no class that has a name, so that it is known of and not learnt
            return [Region(len(self.classes), 0, 0, np.ones((height, width), bool))]
        return found


def has_pictures_in_folders(root: Path) -> bool:
    """Whether `root` holds pictures, or folders of them, and is nothing that this program has written."""
    folders = _folders_in(root)
    if any((folder / name).exists() for folder in folders for name in (LINES, PREPARED)):
        return False
    return bool(images_in(root)) or any(next(_places(folder), None) for folder in folders)


def check_pictures(images: Sequence[Path]) -> None:
    """Raise a UserError if pictures are missing, none, or such that Detectron2 does not read them rightly."""
    findings = Findings()
    examine_pictures(((image, None, None) for image in images), findings)
    findings.conclude()


def _layout(root: Path, findings: Findings) -> _Layout:
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return _Layout(_same_paths(root / "images", root / "masks", findings), root / "images")
    folders = [folder for folder in _folders_in(root) if next(_places(folder), None)]
    masks = next((folder for folder in folders if _MASKS.fullmatch(folder.name)), None)
    if images_in(root):
        if folders not in ([], [masks]):
            raise UserError(f"{root} holds pictures beside folders of them; move them to the folder of their class.")
        return _Layout(_of_class(root, findings, name=ONE_CLASS), root)
    if (root / "test").is_dir() and masks is not None:
        folders = [*_folders_in(root / "test"), *_folders_in(root / "train")]
    pairs = []
    for folder in folders:
        if folder != masks:
            pairs += _of_class(folder, findings, masks and masks / folder.name)
    for folder in _folders_in(masks) if masks else ():
        if folder.name not in {other.name for other in folders}:
            findings.add(NO_PICTURE_OF, folder)
    return _Layout(_joined(pairs), root, by_folder=True)


def _of_class(folder: Path, findings: Findings, masks: Path | None = None, name: str | None = None) -> list[Pair]:
    """The pictures of a class's folder, with their masks beside them, in a folder of masks, or in `masks`."""
    if name is None:
        name = "" if _FREE.fullmatch(folder.name) else folder.name
    places = list(_places(folder))
    truths = [place for place in places if _MASKS.fullmatch(place.name) and place != folder]
    pairs, used = [], set()
    for place in places:
        if place not in truths:
            own = masks or next((truth for truth in truths if truth.parent in (place, place.parent)), None)
            used.add(own)
            pairs += label_images(place, own or place, findings, name, bare=True)
    for truth in truths:
        if truth not in used:
            findings.add(NO_PICTURE_OF, truth)
    return pairs


def _same_paths(images: Path, masks: Path, findings: Findings) -> list[Pair]:
    """images/ and masks/ of the same paths: of one class, or with a folder of masks for each, or for each picture."""
    below = {path.relative_to(images) for path in _places(images)}
    classes = [path.name for path in _folders_in(masks) if next(_places(path), None)]
    classes = [name for name in classes if name not in {path.parts[0] for path in below if path.parts}]
    if classes and set(classes) <= {path.stem for path in images_in(images)}:
        return [Pair(path, tuple(images_in(masks / path.stem)), ONE_CLASS) for path in images_in(images)]
    pairs = []
    for name in classes or [""]:
        root = masks / name
        for place in sorted(below | {path.relative_to(root) for path in _places(root)}):
            pairs += label_images(images / place, root / place, findings, name or ONE_CLASS, bare=True)
    for file in images_in(masks) if classes else ():
        findings.add(NO_PICTURE_OF, file, detail=f", as masks/ has a folder for each class ({', '.join(classes)})")
    return pairs


def _joined(pairs: list[Pair]) -> list[Pair]:
    """The pairs, with one file for pictures that lie, byte for byte, in the folders of several classes."""
    by_size: dict[int, list[Path]] = {}
    for picture in sorted(pair.picture for pair in pairs):
        by_size.setdefault(os.path.getsize(picture), []).append(picture)
    first: dict[bytes, Path] = {}
    same = {
        picture: first.setdefault(hashlib.sha256(picture.read_bytes()).digest(), picture)
        for pictures in by_size.values()
        if len(pictures) > 1
        for picture in pictures
    }
    return [pair._replace(picture=same.get(pair.picture, pair.picture)) for pair in pairs]


def _prefix(root: Path, names: list[str]) -> str:
    """What the folders of all classes begin with up to a dash, if one of defect-free pictures does so as well."""
    free = [path.name for path in _folders_in(root) if _FREE.fullmatch(path.name)]
    common = os.path.commonprefix([*names, *free]) if free and names else ""
    return common[: max(common.rfind("_"), common.rfind("-")) + 1]


def _places(folder: Path) -> Iterator[Path]:
    """The folder and those below it that hold pictures, without hidden ones."""
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if images_in(Path(place)):
            yield Path(place)


def _folders_in(root: Path) -> list[Path]:
    found = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))
