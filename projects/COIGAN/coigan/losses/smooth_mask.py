"""Masks with soft borders, as weights of a loss (thesis 4.4.1, figure 4.16)."""

import torch
import torch.nn.functional as F


def odd_kernel(kernel: int) -> int:
    """The kernel's side, made odd by adding 1 where it is even; 0 becomes 1, which does not smooth."""
    return kernel + 1 - kernel % 2


def smooth_mask(masks: torch.Tensor, kernel: int) -> torch.Tensor:
    """The sum over all classes of their masks, each pixel replaced by the mean of a square around it, zeros outside.

    Args:
        masks: (N, n, H, W) in [0, 1].
        kernel: side of the square; see `odd_kernel`.

    Returns:
        (N, 1, H, W), in [0, n].
    """
    side = odd_kernel(kernel)
    union = masks.sum(1, keepdim=True)
    if side == 1:
        return union
    # A square's mean is the mean along one axis of the means along the other.
    rows = F.avg_pool2d(union, (side, 1), stride=1, padding=(side // 2, 0))
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, side // 2))


def weight_map(masks: torch.Tensor, kernel: int, inside: float, outside: float) -> torch.Tensor:
    """W = inside * M + outside * (1 - M), M the `smooth_mask` of (N, n, H, W) masks: (N, 1, H, W)."""
    smooth = smooth_mask(masks, kernel)
    return inside * smooth + outside * (1 - smooth)


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum(weights * values) / sum(weights), both broadcast in the numerator; 0 where no weight is left.

    With three channels of values to one of weights this is three times the mean, as in the source.
    """
    # Where all weights are zero, as with an empty mask and no background, the numerator is zero as well.
    return (weights * values).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
