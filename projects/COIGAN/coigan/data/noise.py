"""The noise in masks that gives the generator something to vary (thesis 4.3.5, figures 4.12 to 4.14)."""

from collections.abc import Sequence
from dataclasses import dataclass

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
        """(n, H, W) masks of 0 and 1 -> (n, H, W); an empty channel stays empty.

        Args:
            draw: where the noise comes from; the global generator by default.
        """
        soft = soften(masks, self.smooth)
        noise = self._draw(masks.shape, draw)
        if self.strategy == "additive":
            noisy = (soft + noise) * (soft > 0)
        elif self.strategy == "multiplicative" or self.smooth > 1:
            noisy = soft * noise
        else:
            noisy = noise * (soft > 0)
        if self.smooth > 1:
            low = noisy.amin((1, 2), keepdim=True).clamp(max=0)
            high = noisy.amax((1, 2), keepdim=True).clamp(min=1)
            noisy = (noisy - low) / (high - low) * soft
        return noisy * masks.flatten(1).any(1)[:, None, None]

    def _draw(self, shape: torch.Size, draw: torch.Generator | None) -> torch.Tensor:
        classes, height, width = shape
        total = torch.zeros(shape)
        for scale in self.scales or (1,):
            size = (classes, max(1, height // scale), max(1, width // scale))
            part = self.mean + self.std * torch.randn(size, generator=draw)
            if scale > 1:
                part = F.interpolate(part[None], (height, width), mode="bilinear", align_corners=True)[0]
            total += part
        return total


def soften(masks: torch.Tensor, kernel: int) -> torch.Tensor:
    """(n, H, W) blurred by a Gaussian of side `kernel` (made odd) and deviation 0.15 k + 0.35; 0 and 1 leave it."""
    side = kernel + 1 - kernel % 2
    if side == 1:
        return masks
    distance = torch.arange(side, dtype=masks.dtype) - side // 2
    taps = torch.exp(-(distance**2) / (2 * (0.15 * side + 0.35) ** 2))
    taps = taps / taps.sum()
    # beyond the image the mask goes on as in a mirror, as in torchvision's blur; small images repeat their border
    pad = side // 2
    mode = "reflect" if pad < min(masks.shape[-2:]) else "replicate"
    padded = F.pad(masks[:, None], (pad, pad, pad, pad), mode=mode)
    rows = F.conv2d(padded, taps.view(1, 1, -1, 1))
    return F.conv2d(rows, taps.view(1, 1, 1, -1))[:, 0]
