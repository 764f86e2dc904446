"""Scores of a binary segmentation, over all pixels of a set of images."""

from dataclasses import dataclass, field

import numpy as np
import torch

THRESHOLD = 0.6
# a segmenter that calls more of all pixels a defect, where fewer are, has learnt nothing
_EVERYTHING, _FEW = 0.9, 0.5


@dataclass
class Confusion:
    """Pixels that are rightly and wrongly called defect and background."""

    hit: int = 0
    invented: int = 0
    missed: int = 0
    clean: int = 0

    def add(self, logits: torch.Tensor, masks: torch.Tensor, threshold: float = THRESHOLD) -> None:
        """Count the pixels of (N, H, W) logits against masks of 0 and 1; above `threshold` is called defect."""
        found, true = logits.sigmoid() > threshold, masks > 0
        self.hit += int((found & true).sum())
        self.invented += int((found & ~true).sum())
        self.missed += int((~found & true).sum())
        self.clean += int((~found & ~true).sum())

    def scores(self) -> dict[str, float]:
        """IoU, F1, precision, recall and accuracy in [0, 1]; what has no pixel to judge by is 0."""

        def share(part: int, whole: int) -> float:
            return part / whole if whole else 0.0

        return {
            "IoU": share(self.hit, self.hit + self.invented + self.missed),
            "F1": share(2 * self.hit, 2 * self.hit + self.invented + self.missed),
            "precision": share(self.hit, self.hit + self.invented),
            "recall": share(self.hit, self.hit + self.missed),
            "accuracy": share(self.hit + self.clean, self.hit + self.invented + self.missed + self.clean),
        }

    @property
    def collapsed(self) -> str:
        """What is the matter with a segmenter that says the same of every pixel; "" if nothing is."""
        found, true = self.hit + self.invented, self.hit + self.missed
        pixels = found + self.missed + self.clean
        if true and not found:
            return "finds nothing"
        return "calls all a defect" if found > _EVERYTHING * pixels and true < _FEW * pixels else ""


@dataclass
class ByClass:
    """How well the defects of each class are found, by a segmenter that knows one kind.

    Attributes:
        hit, pixels: of the class that are found, and all of it.
        union: the class and what is found beside it under no other class, in the images that hold the class.
    """

    names: tuple[str, ...]
    hit: np.ndarray = field(init=False)
    pixels: np.ndarray = field(init=False)
    union: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.hit, self.pixels, self.union = np.zeros((3, len(self.names)), int)

    def add(self, found: np.ndarray, masks: np.ndarray) -> None:
        """Count an image's (H, W) bool against (n, H, W) bool."""
        every = masks.any(0)
        for label in np.flatnonzero(masks.any((1, 2))):
            own = masks[label]
            self.hit[label] += (found & own).sum()
            self.pixels[label] += own.sum()
            self.union[label] += (own | found & ~every).sum()

    def scores(self) -> dict[str, dict[str, float | None]]:
        """IoU and recall of each class in [0, 1]; None of one that no image holds."""
        return {
            name: {
                "IoU": self.hit[label] / self.union[label] if self.pixels[label] else None,
                "recall": self.hit[label] / self.pixels[label] if self.pixels[label] else None,
            }
            for label, name in enumerate(self.names)
        }
