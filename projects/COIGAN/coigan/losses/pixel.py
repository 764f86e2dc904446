"""Losses on pixels."""

import torch
import torch.nn.functional as F

from gan_plugin.errors import UserError

from .smooth_mask import weight_map, weighted_mean


def smooth_masked_l1(
    fake: torch.Tensor, base: torch.Tensor, masks: torch.Tensor, kernel: int, inside: float, outside: float
) -> torch.Tensor:
    """sum(W |fake - base|) / sum(W) (thesis 4.4.1): the background has to stay, the defect's area may change.

    W has one channel and the images have three, so the value is three times the weighted mean, as in the source.

    Args:
        fake, base: (N, 3, H, W).
        masks: (N, n, H, W) in [0, 1].
        kernel, inside, outside: of `weight_map`.
    """
    return weighted_mean((fake - base).abs(), weight_map(masks, kernel, inside, outside))


def plain_distance(fake: torch.Tensor, base: torch.Tensor, kind: str, reduction: str) -> torch.Tensor:
    """Absolute ("l1") or squared ("mse") error of two images, its mean or sum ("mean", "sum").

    Raises:
        UserError: another reduction.
    """
    if reduction not in ("mean", "sum"):
        raise UserError(f"LOSS.REDUCTION is {reduction!r}; set it to mean or sum.")
    distance = F.l1_loss if kind == "l1" else F.mse_loss
    return distance(fake, base, reduction=reduction)
