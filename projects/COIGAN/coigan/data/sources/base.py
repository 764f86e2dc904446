"""What a source of annotated images offers, and a reader of whole masks over any of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from coigan.data.regions import Region, class_masks
from gan_plugin.data.findings import Findings
from gan_plugin.data.pictures import examine_pictures, read_rgb
from gan_plugin.errors import UserError

MODES = ("all", "defected", "none_defected")


class Source(Protocol):
    """Annotated images. It can be pickled, so that other processes read from it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; a region's label is an index into them."""

    @property
    def images(self) -> Sequence[Path]:
        """The files, sorted."""

    def name(self, number: int) -> str:
        """A file name that no other image of the source has."""

    def has_objects(self, number: int) -> bool:
        """Whether image `number` is annotated with any object; found without decoding it."""

    def regions(self, number: int, height: int, width: int) -> list[Region]:
        """The objects of image `number`, of that size in pixels.

        Raises:
            UserError: its annotation is damaged; the sentence names file and line or record.
        """


class Reader:
    """Iterates over (image (H, W, 3) uint8 RGB, masks (H, W, n) uint8 or None where there is no object).

    Args:
        source: of images and objects.
        mode: "all" images, those "defected", or "none_defected".
        target_classes: names, whose order is that of the mask channels; objects of others are left out. None for all.
        mask_only: leave the images out: (None, masks).

    Raises:
        UserError: an unknown mode or class.
    """

    def __init__(
        self,
        source: Source,
        mode: Literal["all", "defected", "none_defected"] = "all",
        target_classes: Sequence[str] | None = None,
        mask_only: bool = False,
    ) -> None:
        if mode not in MODES:
            raise UserError(f"There is no mode {mode!r} of reading; use one of {', '.join(MODES)}.")
        self.classes = tuple(target_classes or source.classes)
        self._new_label = label_map(source.classes, self.classes)
        self._source, self._mask_only = source, mask_only
        wanted = {"all": (True, False), "defected": (True,), "none_defected": (False,)}[mode]
        self._numbers = [number for number in range(len(source.images)) if source.has_objects(number) in wanted]

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[np.ndarray | None, np.ndarray | None]]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        number = self._numbers[place]
        pixels = read_rgb(self._source.images[number])
        height, width = pixels.shape[:2]
        regions = relabelled(self._source.regions(number, height, width), self._new_label)
        masks = class_masks(regions, len(self.classes), height, width).transpose(1, 2, 0).astype(np.uint8)
        return None if self._mask_only else pixels, masks if regions else None


def check_pictures(images: Sequence[Path]) -> None:
    """Raise a UserError if pictures are missing, none, or such that Detectron2 does not read them rightly."""
    findings = Findings()
    examine_pictures(((image, None, None) for image in images), findings)
    findings.conclude()


def label_map(classes: Sequence[str], chosen: Sequence[str]) -> dict[int, int]:
    """Index in `classes` -> index in `chosen`, of those that were chosen.

    Raises:
        UserError: a chosen class does not exist, or is chosen twice.
    """
    if len(set(chosen)) < len(chosen):
        raise UserError(f"A class is named twice in {', '.join(chosen)}; name each one once.")
    for name in chosen:
        if name not in classes:
            raise UserError(f"There is no class {name!r}; choose from {', '.join(classes)}.")
    return {list(classes).index(name): place for place, name in enumerate(chosen)}


def relabelled(regions: list[Region], new_label: dict[int, int]) -> list[Region]:
    """The regions whose label is a key of `new_label`, with its value as their label."""
    return [Region(new_label[r.label], r.x, r.y, r.mask) for r in regions if r.label in new_label]
