"""Distances of images in the features of a frozen network (thesis 4.4.2 and equation 2.15)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .smooth_mask import weighted_mean

Features = Sequence[torch.Tensor]


def smooth_masked_perceptual(fake: Features, base: Features, weights: torch.Tensor) -> torch.Tensor:
    """mean over layers of sum(W_l * sum_c (fake - base)^2) / sum(W_l) (thesis 4.4.2).

    It sums over channels, so its scale is about their number times that of `plain_perceptual`, as in the source.

    Args:
        fake, base: of each layer (N, C_l, H_l, W_l).
        weights: (N, 1, H, W) of `weight_map`, resized to each layer.
    """
    values = []
    for ours, theirs in zip(fake, base, strict=True):
        resized = F.interpolate(weights, size=ours.shape[-2:], mode="bilinear", align_corners=True)
        values.append(weighted_mean((ours - theirs).square().sum(1, keepdim=True), resized))
    return torch.stack(values).mean()


def plain_perceptual(fake: Features, base: Features, mean_over_layers: bool = False) -> torch.Tensor:
    """The mean squared difference of each layer, summed over layers (LaMa) or their mean (thesis equation 2.15)."""
    values = torch.stack([F.mse_loss(ours, theirs) for ours, theirs in zip(fake, base, strict=True)])
    return values.mean() if mean_over_layers else values.sum()


def feature_matching(fake: Features, real: Features) -> torch.Tensor:
    """Mean over layers of the mean absolute difference (pix2pixHD: Wang et al. 2018, arXiv 1711.11585, equation 4)."""
    return torch.stack([F.l1_loss(ours, theirs) for ours, theirs in zip(fake, real, strict=True)]).mean()
