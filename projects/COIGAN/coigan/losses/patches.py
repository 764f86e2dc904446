"""LaMa's discriminator loss, which takes only patches that touch a rebuilt area for fake (thesis equation 2.16)."""

import torch
import torch.nn.functional as F


def masked_patch_loss(real: torch.Tensor, fake: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """-E[log D(x)] - E[log D(fake) o (1 - m) + log(1 - D(fake)) o m], D the sigmoid of a verdict.

    Args:
        real, fake: maps of verdicts (N, H', W').
        masks: (N, n, H, W); a patch that any of them touches counts as rebuilt.
    """
    union = masks.amax(1, keepdim=True)
    touched = (F.adaptive_max_pool2d(union, fake.shape[-2:])[:, 0] > 0).to(fake.dtype)
    on_fake = touched * F.softplus(fake) + (1 - touched) * F.softplus(-fake)
    return F.softplus(-real).mean() + on_fake.mean()
