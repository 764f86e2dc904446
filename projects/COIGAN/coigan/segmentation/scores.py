"""Scores of a binary segmentation, over all pixels of a set of images."""

from dataclasses import dataclass

import torch

THRESHOLD = 0.6


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
