"""Data sets in COCO's format."""

from collections import Counter
from pathlib import Path

from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.shapes import decode_mask
from gan_plugin.errors import UserError

from . import licence
from .scene import Scene, SceneFile, SceneObject, tight


class Coco:
    """The scenes of a COCO JSON of instances; any category."""

    title = "COCO format"
    more = ()

    def __init__(self, json_file: str | Path, images: str | Path, on_bad: str = "stop", option: str = "") -> None:
        """
        Args:
            json_file: with "images", "annotations" and "categories".
            images: the folder that the file names are relative to.
            on_bad, option: what becomes of broken annotations, see `Findings`.

        Raises:
            UserError: something is the matter with the file or its pictures; all of it is told together.
        """
        self.place, self.licence = str(json_file), licence.COCO
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
