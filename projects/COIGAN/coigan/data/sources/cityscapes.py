"""Cityscapes: leftImg8bit/<split>/<city>/ and the instance images of gtFine."""

from pathlib import Path

import cv2
import numpy as np

from coigan.data.regions import Region, tight
from gan_plugin.data.cityscapes import IMAGE_SUFFIX, files_of, id_image_problem
from gan_plugin.data.findings import Findings
from gan_plugin.data.pictures import read_header
from gan_plugin.errors import UserError

from .base import check_pictures


class CityscapesSource:
    """An object is an instance of one of the eight evaluated classes, exactly as its visible pixels are.

    Args:
        folder: with leftImg8bit/ and gtFine/.
        splits: whose images are taken.

    Raises:
        UserError: there are no images, or one of them or its truth is missing or not what it should be.
    """

    def __init__(self, folder: str | Path, splits: tuple[str, ...] = ("train",)) -> None:
        from cityscapesscripts.helpers.labels import labels

        evaluated = [label for label in labels if label.hasInstances and not label.ignoreInEval]
        self.classes = tuple(label.name for label in evaluated)
        self._label = {label.id: number for number, label in enumerate(evaluated)}
        root = Path(folder)
        self.images = sorted(
            path
            for split in splits
            for path in (root / "leftImg8bit" / split).glob(f"*/*{IMAGE_SUFFIX}")
            if path.is_file()
        )
        if not self.images:
            raise UserError(f"{root} holds no leftImg8bit/{splits[0]}/<city>/*{IMAGE_SUFFIX}; unpack Cityscapes there.")
        self._truth = []
        for image in self.images:
            truth = files_of(image, root / "gtFine" / image.parent.parent.name).instance_ids
            if not truth.is_file():
                raise UserError(f"{truth} is missing, so {image} has no annotation; unpack gtFine there.")
            self._truth.append(truth)
        check_pictures(self.images)
        findings = Findings(option="")
        for image, truth in zip(self.images, self._truth, strict=True):
            if problem := id_image_problem(truth, *read_header(image)[:2]):
                findings.add(*problem)
        findings.conclude()

    def name(self, number: int) -> str:
        """The file's own name, which begins with its city."""
        return self.images[number].name

    def has_objects(self, number: int) -> bool:
        """Whether an evaluated instance is in the picture."""
        return any(value // 1000 in self._label for value in np.unique(self._instances(number)) if value >= 1000)

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The visible part of each instance.

        Raises:
            UserError: the instance image cannot be decoded.
        """
        ids = self._instances(number)
        found = []
        for value in np.unique(ids[ids >= 1000]):
            label = self._label.get(int(value) // 1000)
            region = None if label is None else tight(ids == value, label)
            if region is not None:
                found.append(region)
        return found

    def _instances(self, number: int) -> np.ndarray:
        pixels = cv2.imdecode(np.fromfile(self._truth[number], np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 2:
            raise UserError(f"{self._truth[number]} cannot be decoded; unpack gtFine again.")
        return pixels
