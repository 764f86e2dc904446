"""Images with the union of their objects' masks, from a COCO JSON."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from gan_plugin.data.coco_json import load_coco
from gan_plugin.data.pictures import read_rgb
from gan_plugin.data.shapes import decode_mask


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
        self._masks = [[each["segmentation"] for each in objects[entry["id"]]] for entry in file.images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        file, width, height = self._images[number]
        pixels = read_rgb(file, (width, height))
        mask = np.zeros((height, width), bool)
        for each in self._masks[number]:
            mask |= decode_mask(each, width, height)
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return image, torch.from_numpy(mask).float()

    def pictures(self) -> set[Path]:
        """The files, resolved."""
        return {file.resolve() for file, _, _ in self._images}
