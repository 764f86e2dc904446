"""The Haar wavelet transform, orthonormal (SWAGAN: Gal et al. 2021, arXiv 2102.06108, section 3)."""

import torch


def dwt(images: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, 4C, H/2, W/2): averages, differences down, across, and of both, C channels each.

    H and W are even.
    """
    a, b = images[..., 0::2, 0::2], images[..., 0::2, 1::2]
    c, d = images[..., 1::2, 0::2], images[..., 1::2, 1::2]
    top, bottom, over, under = a + b, c + d, a - b, c - d
    return torch.cat([top + bottom, top - bottom, over + under, over - under], dim=1) / 2


def iwt(bands: torch.Tensor) -> torch.Tensor:
    """(N, 4C, H, W) -> (N, C, 2H, 2W), the inverse of `dwt`."""
    low, down, across, both = (bands / 2).chunk(4, dim=1)
    top, bottom, over, under = low + down, low - down, across + both, across - both
    pixels = torch.stack([top + over, top - over, bottom + under, bottom - under], dim=-1)
    n, c, h, w, _ = pixels.shape
    return pixels.view(n, c, h, w, 2, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)
