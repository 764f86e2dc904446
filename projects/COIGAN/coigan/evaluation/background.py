"""How well painting leaves alone what no mask asks for (thesis 4.4.4 admits that it does not)."""

import math
from collections.abc import Callable

import torch

from coigan.engine.batch import Batch

from .features import as_bytes

_LARGEST = 255


class BackgroundChange:
    """Differences between painted and base images, in bytes, summed up pixel by pixel in and outside of the masks."""

    def __init__(self) -> None:
        self._absolute = {"inside": 0.0, "outside": 0.0}
        self._squares = {"inside": 0.0, "outside": 0.0}
        self._values = {"inside": 0, "outside": 0}

    def add(self, images: torch.Tensor, batch: Batch) -> None:
        """Count `images`, (N, 3, H, W) in [0, 1], which were painted for `batch`."""
        difference = as_bytes(images).cpu().double() - as_bytes(batch.base).cpu().double()
        asked = (batch.masks.amax(1, keepdim=True) > 0).cpu().expand_as(difference)
        for where, chosen in (("inside", asked), ("outside", ~asked)):
            part = difference[chosen]
            self._absolute[where] += part.abs().sum().item()
            self._squares[where] += part.square().sum().item()
            self._values[where] += part.numel()

    def watching(self, paint: Callable[[Batch], torch.Tensor]) -> Callable[[Batch], torch.Tensor]:
        """`paint`, of which every result is counted."""

        def watched(batch: Batch) -> torch.Tensor:
            images = paint(batch)
            self.add(images, batch)
            return images

        return watched

    def results(self) -> dict[str, float | None]:
        """L1 outside and inside of the masks, the mean absolute difference in [0, 255], and the PSNR outside in dB.

        None where there is no such pixel; an unchanged background has no finite PSNR, so None as well.
        """
        mean_square = self._ratio(self._squares, "outside")
        psnr = 10 * math.log10(_LARGEST**2 / mean_square) if mean_square else None
        return {
            "L1_outside": self._ratio(self._absolute, "outside"),
            "PSNR_outside": psnr,
            "L1_inside": self._ratio(self._absolute, "inside"),
        }

    def _ratio(self, sums: dict[str, float], where: str) -> float | None:
        return sums[where] / self._values[where] if self._values[where] else None
