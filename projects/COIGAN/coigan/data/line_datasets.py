"""Line sets as PyTorch data sets: masks alone, objects one by one, image and masks (thesis 4.3.2, figure 4.10)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .augmentor import Augmentor
from .line_sets import LineSet
from .regions import class_masks


class LineDataset(Dataset):
    """What the others share: records by number, and an augmentor whose choices depend on (seed, number) alone.

    Args:
        folder: of the line set.
        augmentor: None leaves samples as they are.
        seed: of the augmentation; another one for another pass.

    Raises:
        UserError: there is no line set.
    """

    def __init__(self, folder: str | Path, augmentor: Augmentor | None = None, seed: int = 0) -> None:
        self.lines = LineSet(folder)
        self.seed = seed
        self._augmentor = augmentor

    def __len__(self) -> int:
        return len(self.lines)

    def augmented(
        self, number: int, image: torch.Tensor | None, masks: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Image and masks as the augmentor leaves them for record `number`."""
        if self._augmentor is None:
            return image, masks
        return self._augmentor(image, masks, int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))

    def masks_of(self, record: dict[str, Any]) -> torch.Tensor:
        """(n, H, W) bool, a channel for each class."""
        height, width = record["size"]
        return torch.from_numpy(class_masks(self.lines.regions(record), len(self.lines.classes), height, width))


class MaskDataset(LineDataset):
    """(n, H, W) bool; the image is not read."""

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.augmented(number, None, self.masks_of(self.lines.store[number]))[1]


class SeparateMaskDataset(LineDataset):
    """{"masks": (r, H, W) bool, "labels": (r,) int64}: each object on its own; the image is not read."""

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        record = self.lines.store[number]
        regions = self.lines.regions(record)
        height, width = record["size"]
        masks = torch.zeros((len(regions), height, width), dtype=torch.bool)
        for place, region in enumerate(regions):
            masks[place] = torch.from_numpy(region.painted(height, width))
        labels = torch.tensor([region.label for region in regions], dtype=torch.int64)
        return {"masks": self.augmented(number, None, masks)[1] if regions else masks, "labels": labels}


class ImageMaskDataset(LineDataset):
    """{"image": (3, H, W) float in [0, 1], "masks": (n, H, W) bool}."""

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        record = self.lines.store[number]
        image = torch.from_numpy(self.lines.image(record)).permute(2, 0, 1).contiguous()
        augmented, masks = self.augmented(number, image, self.masks_of(record))
        assert augmented is not None
        return {"image": augmented.float() / 255, "masks": masks}
