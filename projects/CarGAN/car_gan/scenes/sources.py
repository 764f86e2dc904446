"""Where scenes and single cars come from besides Cityscapes: COCO's format, folders of pictures, Stanford Cars."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import io

from car_gan.pictures import Colour, noted_key
from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.pictures import read_header, read_rgba
from gan_plugin.data.shapes import decode_mask
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import check_exists

from .scene import TERMS_COCO, TERMS_FOLDER, TERMS_STANFORD, Scene, SceneFile, SceneObject, tight

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# pixels of exactly the key colour that make a picture one on a green ground and no photograph
_LEAST_KEY = 0.01


class Coco:
    """The scenes of a COCO JSON of instances; any category."""

    title = "COCO format"
    more: tuple[str, ...] = ()

    def __init__(self, json_file: str | Path, images: str | Path, on_bad: str = "stop", option: str = "") -> None:
        """
        Args:
            json_file: with "images", "annotations" and "categories".
            images: the folder that the file names are relative to.
            on_bad, option: what becomes of broken annotations, see `Findings`.

        Raises:
            UserError: something is the matter with the file or its pictures; all of it is told together.
        """
        self.place, self.licence = str(json_file), TERMS_COCO
        file = load_coco(json_file, images, on_bad=on_bad, option=option)
        self.categories = {entry["id"]: entry["name"] for entry in file.categories}
        self._shapes = {str(entry["id"]): (entry["height"], entry["width"]) for entry in file.images}
        self._annotations = {str(key): entries for key, entries in file.annotations_of_images().items()}
        self._broken: dict[str, list[tuple[str, str]]] = {}
        for entry in file.left_out:
            label = self.categories.get(entry.get("category_id"), "")
            sentence = f"{json_file}, annotation {entry.get('id')}: it is broken."
            self._broken.setdefault(str(entry.get("image_id")), []).append((label, sentence))
        self._files = [
            SceneFile(file.relative_name(entry).with_suffix("").as_posix(), file.picture(entry), "", str(entry["id"]))
            for entry in file.images
        ]
        repeated = [name for name, count in Counter(file.name for file in self._files).items() if count > 1]
        if repeated:
            raise UserError(f"{json_file} has two images named {repeated[0]}; give every image a name of its own.")

    def files(self) -> list[SceneFile]:
        return self._files

    def load(self, file: SceneFile) -> Scene:
        height, width = shape = self._shapes[file.truth]
        numbers: Counter[str] = Counter()
        objects = []
        for annotation in self._annotations[file.truth]:
            label = self.categories[annotation["category_id"]]
            number = numbers[label]
            numbers[label] += 1
            cut, corner = tight(decode_mask(annotation["segmentation"], width, height))
            (x, y), (rows, columns) = corner, cut.shape
            outline = (float(x), float(y), float(x + columns), float(y + rows))
            group = bool(annotation["iscrowd"])
            objects.append(SceneObject(number, label, cut, corner, int(cut.sum()), outline, group))
        return Scene(objects, shape, None, self._broken.get(file.truth, []))


class CropFolder:
    """Any folder of pictures, at any depth; a picture's folder counts as its city.

    The car is what is not transparent (RGBA), or not of exactly the key colour (if that colour is there), or else the
    whole picture.
    """

    title = "folder of crops"
    licence = TERMS_FOLDER
    more: tuple[str, ...] = ()

    def __init__(self, folder: str | Path, label: str, key: Colour) -> None:
        """
        Args:
            folder: with PNG, JPEG, WebP or BMP files.
            label: what they show.
            key: the colour that they lie on, unless a manifest or a samples.json says another.

        Raises:
            UserError: there is no such folder.
        """
        self.place, self._folder, self._label = str(folder), Path(folder), label
        self.categories = {1: label}
        check_exists(folder, "The folder of crops", "check --crops", folder=True)
        self._key = noted_key(self._folder) or key

    def files(self) -> list[SceneFile]:
        found = sorted(path for path in self._folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise UserError(f"{self._folder} holds no picture ({', '.join(_SUFFIXES)}); check --crops.")
        names = [path.relative_to(self._folder) for path in found]
        return [
            SceneFile(name.as_posix(), path, "" if name.parent == Path() else name.parent.as_posix())
            for name, path in zip(names, found, strict=True)
        ]

    def load(self, file: SceneFile) -> Scene:
        transparent, pixels = read_header(file.image).transparent, read_rgba(file.image)
        mask = pixels[..., 3] >= 128
        of_key = (pixels[..., :3] == np.asarray(self._key, np.uint8)).all(axis=-1)
        if not transparent and of_key.mean() >= _LEAST_KEY:
            mask = ~of_key
        if not mask.any():
            return Scene(
                [], (len(mask), mask.shape[1]), None, [(self._label, f"{file.image} shows nothing but ground.")]
            )
        return _alone(mask, self._label)


class StanfordCars:
    """Stanford Cars: cars_train and cars_test with the annotations of devkit/, which are boxes and no masks.

    The car is its whole box, so that the surroundings stay in the crop; the city is the car's model, where it is known.
    """

    title = "Stanford Cars"
    licence = TERMS_STANFORD
    categories = {1: "car"}
    more: tuple[str, ...] = ()

    def __init__(self, folder: str | Path) -> None:
        """
        Args:
            folder: that holds cars_train/ or cars_test/ or both, and devkit/.

        Raises:
            UserError: there is neither, or an annotation file is missing or broken.
        """
        self.place, root = str(folder), Path(folder)
        self._boxes: dict[str, tuple[int, int, int, int]] = {}
        self._files: list[SceneFile] = []
        names = _models(root / "devkit" / "cars_meta.mat")
        for part in ("cars_train", "cars_test"):
            if (root / part).is_dir():
                self._add(root / part, _annotations(root / "devkit", part), names)
        if not self._files:
            raise UserError(f"{folder} has neither cars_train nor cars_test; unpack Stanford Cars there.")

    def _add(self, folder: Path, entries: Sequence[Any], names: Sequence[str]) -> None:
        for entry in entries:
            image = folder / str(entry["fname"])
            file = SceneFile(f"{folder.name}/{image.stem}", image, _model(entry, names))
            self._files.append(file)
            x0, y0, x1, y1 = (int(entry[f"bbox_{edge}"]) for edge in ("x1", "y1", "x2", "y2"))
            # the first pixel is 1, and the last one belongs to the box
            self._boxes[file.name] = (x0 - 1, y0 - 1, x1, y1)

    def files(self) -> list[SceneFile]:
        return self._files

    def load(self, file: SceneFile) -> Scene:
        width, height, *_ = read_header(file.image)
        mask = np.zeros((height, width), bool)
        x0, y0, x1, y1 = self._boxes[file.name]
        mask[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        if not mask.any():
            why = "lies outside of the picture" if x0 < x1 and y0 < y1 else "has no area"
            return Scene([], (height, width), None, [("car", f"The box of {file.image} {why}.")])
        return _alone(mask, "car")


def _alone(mask: np.ndarray, label: str) -> Scene:
    cut, (x, y) = tight(mask)
    outline = (float(x), float(y), float(x + cut.shape[1]), float(y + cut.shape[0]))
    return Scene([SceneObject(0, label, cut, (x, y), int(cut.sum()), outline)], (mask.shape[0], mask.shape[1]))


def _annotations(devkit: Path, part: str) -> list[Any]:
    for name in (f"{part}_annos_withlabels.mat", f"{part}_annos.mat"):
        if (devkit / name).is_file():
            return _read_mat(devkit / name, "annotations")
    raise UserError(f"{devkit} has no {part}_annos.mat; unpack car_devkit.tgz beside {part}.")


def _models(path: Path) -> list[str]:
    return [str(name) for name in _read_mat(path, "class_names")] if path.is_file() else []


def _read_mat(path: Path, key: str) -> list[Any]:
    # the reader raises nearly anything for a broken file
    with as_user_error(f"{path} cannot be read", "unpack car_devkit.tgz again", Exception):
        return list(np.atleast_1d(io.loadmat(str(path), squeeze_me=True)[key]))


def _model(entry: Any, names: Sequence[str]) -> str:
    if "class" not in (entry.dtype.names or ()):
        return ""
    number = int(entry["class"])
    return names[number - 1] if number <= len(names) else str(number)
