"""Pictures of what training does with a painted image (thesis figures 4.16 and 4.18)."""

import numpy as np
import torch

from coigan.data.placer import Placement
from coigan.engine.batch import cut_defects
from coigan.losses.pixel import smooth_masked_l1
from coigan.losses.smooth_mask import smooth_mask, weight_map

from . import pictures

# of figure 4.16
_KERNEL, _INSIDE, _OUTSIDE = 5, 0.0, 1.0
_NOISE = 0.25


def pasted(base: torch.Tensor, placement: Placement) -> torch.Tensor:
    """(3, S, S): the placed objects' own pixels on `base`."""
    result = base.clone()
    for mask, canvas in zip(placement.masks, placement.canvases, strict=True):
        pixels = torch.from_numpy(canvas).permute(2, 0, 1).float() / 255
        result = torch.where(torch.from_numpy(mask), pixels, result)
    return result


def extraction_steps(sample: dict[str, torch.Tensor], placement: Placement) -> np.ndarray:
    """An image and its cuts by the mask of each class, in a row (figure 4.18)."""
    image = pasted(sample["base"], placement)
    cuts = cut_defects(image[None], sample["orig_gen_input_masks"][None])[0]
    return pictures.side_by_side([pictures.coloured(part) for part in (image, *cuts.split(3))])


def l1_steps(base: torch.Tensor, union: torch.Tensor, seed: int) -> tuple[np.ndarray, str]:
    """The steps of the smooth masked L1 loss in a row, and a caption with its values (figure 4.16).

    Args:
        base: (3, S, S) in [0, 1].
        union: (1, S, S), 1 where a defect is asked for.
        seed: of the noise that stands for it.
    """
    draw = torch.Generator().manual_seed(seed)
    painted = (base + union * _NOISE * torch.randn(base.shape, generator=draw)).clamp(0, 1)
    masks = union[None]
    weights = weight_map(masks, _KERNEL, _INSIDE, _OUTSIDE)[0]
    raw = (painted - base).abs()
    steps = [pictures.coloured(base), pictures.coloured(painted)]
    greys = (_bright(raw), union, smooth_mask(masks, _KERNEL)[0], weights, _bright(weights * raw))
    steps += [pictures.grey(step.mean(0)) for step in greys]
    values = [
        float(smooth_masked_l1(painted[None], base[None], masks, kernel, _INSIDE, _OUTSIDE)) for kernel in (_KERNEL, 0)
    ]
    return pictures.side_by_side(steps), (
        "From left: base image, painted image, their absolute difference, mask, smoothed mask, weights, weighted "
        f"difference (differences brightened). The loss is {values[0]:.2g}; without smoothing {values[1]:.2g}."
    )


def _bright(values: torch.Tensor) -> torch.Tensor:
    return values / values.max().clamp(min=1e-6)
