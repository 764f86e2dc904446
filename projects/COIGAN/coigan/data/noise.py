"""The noise in masks that gives the generator something to vary (thesis 4.3.5, figures 4.12 to 4.14)."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from gan_plugin.errors import UserError

STRATEGIES = ("additive", "multiplicative", "replace")


@dataclass(frozen=True)
class MaskNoise:
    """Noise of mean `mean` and deviation `std`, in masks whose borders are softened first.

    Attributes:
        mean, std: of the normal noise z.
        strategy: "additive" (m + z) where the mask is, "multiplicative" m z, "replace" z where the mask is.
        scales: z is the sum of noises drawn at 1/s of the size and enlarged bilinearly; () for one at full size.
        smooth: side of the Gaussian kernel that softens the mask, 0 or 1 for none; an even one counts one more.

    Raises:
        UserError: an unknown strategy, or a number out of range.
    """

    mean: float = 0.5
    std: float = 0.08
    strategy: str = "replace"
    scales: Sequence[int] = ()
    smooth: int = 41

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(f"INPUT.NOISE.STRATEGY is {self.strategy!r}; set it to one of {', '.join(STRATEGIES)}.")
        if self.std < 0 or self.smooth < 0 or any(scale < 1 for scale in self.scales):
            raise UserError("INPUT.NOISE: STD and SMOOTH are 0 or more, SCALES 1 or more.")

    def __call__(self, masks: torch.Tensor, draw: torch.Generator | None = None) -> torch.Tensor:
        """(n, H, W) masks of 0 and 1 on the CPU -> (n, H, W); an empty channel stays empty.

        Args:
            draw: where the noise comes from; the global generator by default.
        """
        noise = self._draw(masks.shape, draw)
        present = masks.flatten(1).any(1)
        result = torch.zeros_like(masks)
        result[present] = self._within(masks[present], noise[present])
        return result

    def _within(self, masks: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        soft = soften(masks, self.smooth)
        if self.strategy == "additive":
            noisy = (soft + noise) * (soft > 0)
        elif self.strategy == "multiplicative" or self.smooth > 1:
            noisy = soft * noise
        else:
            noisy = noise * (soft > 0)
        if self.smooth <= 1 or not len(masks):
            return noisy
        low = noisy.amin((1, 2), keepdim=True).clamp(max=0)
        high = noisy.amax((1, 2), keepdim=True).clamp(min=1)
        return (noisy - low) / (high - low) * soft

    def _draw(self, shape: torch.Size, draw: torch.Generator | None) -> torch.Tensor:
        classes, height, width = shape
        total: torch.Tensor | None = None
        for scale in self.scales or (1,):
            size = (classes, max(1, height // scale), max(1, width // scale))
            part = torch.randn(size, generator=draw).mul_(self.std).add_(self.mean)
            if scale > 1:
                part = F.interpolate(part[None], (height, width), mode="bilinear", align_corners=True)[0]
            total = part if total is None else total.add_(part)
        assert total is not None
        return total


def soften(masks: torch.Tensor, kernel: int) -> torch.Tensor:
    """(n, H, W) blurred by a Gaussian of side `kernel` (made odd) and deviation 0.15 k + 0.35; 0 and 1 leave it."""
    side = kernel + 1 - kernel % 2
    if side == 1:
        return masks
    # beyond the image the mask goes on as in a mirror, as in torchvision's blur; small images repeat their border
    border = cv2.BORDER_REFLECT_101 if side // 2 < min(masks.shape[-2:]) else cv2.BORDER_REPLICATE
    soft = [cv2.GaussianBlur(mask, (side, side), 0.15 * side + 0.35, borderType=border) for mask in masks.numpy()]
    return torch.from_numpy(np.stack(soft)) if soft else masks
