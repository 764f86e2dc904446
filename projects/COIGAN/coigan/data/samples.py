"""A training sample from base tiles, reference tiles and objects, and the noise in its masks (thesis 4.3.5, 4.3.6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

from .placer import Placer

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


# axes of (H, W, 3)
FLIPS = {"both": (0, 1), "horizontal": (1,), "vertical": (0,), "": ()}


class SampleSource:
    """Draws samples from the global random state, which the training loader seeds for each position in the stream."""

    def __init__(
        self,
        base: Sequence[Path],
        reference: Sequence[Path],
        defects: Placer,
        noise: MaskNoise,
        shapes: Placer | None = None,
        mask_base: bool = False,
        flip: str = "both",
    ) -> None:
        """
        Args:
            base: defect-free tiles.
            reference: tiles of any kind.
            defects: places real defects.
            noise: in the generator's masks.
            shapes: places the masks that the generator is asked for; None asks for those of the real defects
                (different_shapes False).
            mask_base: black the base image out under the masks.
            flip: axes along which tiles are mirrored half of the time: "both", "horizontal", "vertical", or "".

        Raises:
            UserError: there is no base tile, or an unknown axis.
        """
        if flip not in FLIPS:
            raise UserError(f"DATA.FLIP is {flip!r}; set it to both, horizontal, vertical, or '' for neither.")
        if not base:
            raise UserError("There is no base tile without defects; prepare the data set again.")
        self._base, self._reference = list(base), list(reference)
        self._defects, self._shapes, self._noise, self._mask_base = defects, shapes, noise, mask_base
        self._axes = FLIPS[flip]

    def draw(self, number: int = 0) -> dict[str, torch.Tensor]:
        """A sample, all values in [0, 1]:

        base (3, S, S); ref (3, S, S), if there are any; disc_input (3n, S, S), real defects on black;
        orig_gen_input_masks (n, S, S), clean; gen_input (3 + n, S, S), base and noisy masks;
        gen_input_union_mask (1, S, S).

        Args:
            number: of the sample; it does not decide what is drawn.
        """
        rng = np.random.default_rng(int(torch.randint(0, 2**62, (1,)).item()))
        base = self._tile(self._base, rng)
        defects = self._defects.place(rng)
        asked = defects if self._shapes is None else self._shapes.place(rng, own_overlap=True)
        masks = torch.from_numpy(asked.masks).float()
        union = masks.amax(0, keepdim=True)
        if self._mask_base:
            base = base * (1 - union)
        canvases = _floats(torch.from_numpy(defects.canvases).permute(0, 3, 1, 2)).flatten(0, 1)
        sample = {
            "base": base,
            "gen_input": torch.cat([base, self._noise(masks)]),
            "disc_input": canvases,
            "orig_gen_input_masks": masks,
            "gen_input_union_mask": union,
        }
        if self._reference:
            sample["ref"] = self._tile(self._reference, rng)
        return sample

    def _tile(self, paths: Sequence[Path], rng: np.random.Generator) -> torch.Tensor:
        pixels = read_rgb(paths[int(rng.integers(len(paths)))])
        for axis in self._axes:
            if rng.random() < 0.5:
                pixels = np.flip(pixels, axis)
        return _floats(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))


def _floats(pixels: torch.Tensor) -> torch.Tensor:
    """uint8, of any strides -> contiguous float in [0, 1]."""
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
