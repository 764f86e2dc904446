"""Which parts of a mask the verdict of a discriminator hangs on, if it gives one for the whole mask."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.samples import MaskSamples

# a window of a 28 x 28 mask is 4 x 4 pixels, and moves by 2
_WINDOWS_A_SIDE = 7
# masks that go through the discriminator at a time
_BATCH = 64
_NEARLY = 1e-6


@torch.no_grad()
def occlusion_maps(adversary: Adversary, sample: MaskSamples) -> tuple[np.ndarray, np.ndarray]:
    """Which parts of two masks speak for "predicted" to a discriminator with one logit (Zeiler and Fergus 2014).

    A window slides over the mask. In the annotated mask it is blanked, in the predicted one replaced by the truth. The
    logit's rise is credited to every pixel of the window; where windows overlap, their mean. For a discriminator of
    features it is the fall of the distance instead, which only the predicted mask has.

    Args:
        adversary: with its discriminator in evaluation mode.
        sample: one annotated and one predicted mask, M x M.

    Returns:
        (M, M) of the annotated mask, and of the predicted one.
    """
    areas = _windows(sample.logits.shape[-1]).to(sample.logits.device)
    copies = take(sample, torch.zeros(len(areas), dtype=torch.long, device=areas.device))
    filled = copies.truth.clamp(_NEARLY, 1 - _NEARLY).logit().to(copies.logits.dtype)
    changed = replace(
        copies,
        logits=torch.where(areas, filled, copies.logits),
        truth=torch.where(areas, torch.zeros_like(copies.truth), copies.truth),
    )
    before = scores(adversary, sample)
    parts = [scores(adversary, part, take(copies, index)) for part, index in _batches(changed)]
    after = [torch.cat(side) for side in zip(*parts, strict=True)]
    sign = -1 if adversary.objective.judges == "features" else 1
    maps = [
        (sign * (now - then)[:, None, None] * areas).sum(0) / areas.sum(0)
        for now, then in zip(after, before, strict=True)
    ]
    return maps[0].cpu().numpy(), maps[1].cpu().numpy()


def scores(
    adversary: Adversary, samples: MaskSamples, truth: MaskSamples | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Verdicts on real and on fake, (R,) or (R, H, W); zeros and distances (R,) from a discriminator of features.

    Args:
        adversary: with its discriminator.
        samples: R masks.
        truth: R masks, where distances are measured from if not from the real side of `samples`.
    """
    pair = adversary.present(samples)
    fake = adversary.judge(pair.fake, pair)
    if adversary.objective.judges != "features":
        return adversary.judge(pair.real, pair), fake
    real = adversary.judge(adversary.present(truth or samples).real, pair)
    # as MultiLayerL1 has it, but for each sample by itself
    distances = torch.stack([(a - b).abs().sum(1) for a, b in zip(real, fake, strict=True)]).sum(0)
    distances = distances / sum(features.shape[1] for features in real)
    return torch.zeros_like(distances), distances


def take(samples: MaskSamples, index: torch.Tensor) -> MaskSamples:
    """Those at the places `index`, without what only training needs."""
    return replace(samples.at(index), loss=None, output=None, cut_from=None)


def _windows(side: int) -> torch.Tensor:
    """(W, side, side) bool: squares that cover everything, each overlapping the next by half."""
    window = max(1, side // _WINDOWS_A_SIDE)
    starts = sorted({*range(0, side - window, max(1, window // 2)), side - window})
    areas = torch.zeros(len(starts) ** 2, side, side, dtype=torch.bool)
    for number, area in enumerate(areas):
        top, left = starts[number // len(starts)], starts[number % len(starts)]
        area[top : top + window, left : left + window] = True
    return areas


def _batches(samples: MaskSamples) -> Iterator[tuple[MaskSamples, torch.Tensor]]:
    for index in torch.arange(len(samples), device=samples.logits.device).split(_BATCH):
        yield take(samples, index), index
