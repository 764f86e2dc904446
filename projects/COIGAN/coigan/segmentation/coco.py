"""Images with the union of their objects' masks, from a COCO JSON; and the part of them that validates."""

import re
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Subset

from coigan.data.split import groups_of, split
from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.pictures import read_rgb
from gan_plugin.data.shapes import decode_mask

# a tile is called after its picture, with the row and the column of its corner
_TILE = re.compile(r"(.*)_\d{5}_\d{5}\.png")


class CocoMasks(Dataset):
    """(3, H, W) float images in [0, 1] and (H, W) float masks, 1 where any object is."""

    def __init__(self, path: str | Path, images: str | Path = "") -> None:
        """
        Args:
            path: of the JSON.
            images: folder of the pictures; "" for the JSON's own folder, or the folder images/ beside it.

        Raises:
            UserError: something is the matter with the file or its pictures; all of it is told together.
        """
        file = load_coco(path, images or None)
        self._images = [(file.picture(entry), entry["width"], entry["height"]) for entry in file.images]
        objects = file.annotations_of_images()
        self.classes = tuple(entry["name"] for entry in file.categories)
        label = {entry["id"]: number for number, entry in enumerate(file.categories)}
        self._names = [file.relative_name(entry).as_posix() for entry in file.images]
        self._masks = [
            [(label[each["category_id"]], each["segmentation"]) for each in objects[entry["id"]]]
            for entry in file.images
        ]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        file, width, height = self._images[number]
        pixels = read_rgb(file, (width, height))
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return image, torch.from_numpy(self.by_class(number).any(0)).float()

    def by_class(self, number: int) -> np.ndarray:
        """(n, H, W) bool of image `number`, a channel for each of `classes`."""
        _, width, height = self._images[number]
        masks = np.zeros((len(self.classes), height, width), bool)
        for label, each in self._masks[number]:
            masks[label] |= decode_mask(each, width, height)
        return masks

    def pictures(self) -> set[Path]:
        """The files, resolved."""
        return {file.resolve() for file, _, _ in self._images}

    def held_out(self, share: float, seed: int, group: str = "", within: int = 0) -> tuple[Subset, Subset]:
        """What is left to train on, and a part of that share to validate with, both with a fair share of every class.

        Args:
            share: of the images, between 0 and 1.
            seed: of the split.
            group, within: what stays together, see `groups_of`; "" for the tiles of a picture.

        Raises:
            UserError: the images cannot be split so.
        """
        counts = np.zeros((len(self), len(self.classes)), int)
        for number, masks in enumerate(self._masks):
            np.add.at(counts[number], [label for label, _ in masks], 1)
        tiles = [_TILE.fullmatch(name) for name in self._names]
        groups = None
        if group:
            groups = groups_of(self._names, group, within)[0]
        elif all(tiles):
            groups = groups_of(self._names, _TILE.pattern)[0]
        parts = split(counts, {"train": 1 - share, "val": share}, seed=seed, groups=groups)
        train, val = (np.flatnonzero(parts == part).tolist() for part in (0, 1))
        return Subset(self, train), Subset(self, val)
