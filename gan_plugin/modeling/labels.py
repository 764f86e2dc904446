"""The discriminator's labels: soft and now and then wrong (thesis 5.7)."""

import math
from dataclasses import dataclass

import torch

from gan_plugin.errors import UserError


@dataclass(frozen=True)
class LabelNoise:
    """Draws one label per sample.

    Attributes:
        real, fake: (low, high) of the uniform distribution of either label; equal ends are a hard label.
        flip_prob: probability in [0, 1] that a sample gets a label of the other side's range.

    Raises:
        UserError: a range is not one, or the probability is outside [0, 1].
    """

    real: tuple[float, float] = (0.7, 1.2)
    fake: tuple[float, float] = (0.0, 0.3)
    flip_prob: float = 0.05

    def __post_init__(self) -> None:
        for name, ends in (("REAL", self.real), ("FAKE", self.fake)):
            are_numbers = all(isinstance(end, int | float) and math.isfinite(end) for end in ends)
            if len(ends) != 2 or not are_numbers or ends[0] > ends[1]:
                raise UserError(f"MODEL.GAN.LABELS.{name} is {ends}; give two finite numbers, the lower one first.")
        if not 0 <= self.flip_prob <= 1:
            raise UserError(f"MODEL.GAN.LABELS.FLIP_PROB is {self.flip_prob}; give a probability in [0, 1].")

    def draw(self, logits: torch.Tensor, is_real: bool) -> torch.Tensor:
        """Labels for `logits`, same shape, dtype and device, without gradient; from torch's global random state."""
        own, other = (self.real, self.fake) if is_real else (self.fake, self.real)
        labels = torch.empty_like(logits).uniform_(*own)
        if self.flip_prob > 0:
            flipped = torch.rand_like(labels) < self.flip_prob
            labels = torch.where(flipped, torch.empty_like(labels).uniform_(*other), labels)
        return labels
