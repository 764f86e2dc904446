"""The top data set: a training sample from base tiles, reference tiles and objects (thesis 4.3.6, figure 4.15)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

from .noise import MaskNoise
from .placer import Placer

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
