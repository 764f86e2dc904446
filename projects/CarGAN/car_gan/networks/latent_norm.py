"""Batch normalisation that the latent may steer."""

import torch
from torch import nn


class LatentNorm(nn.Module):
    """BatchNorm, whose gain and bias a linear map of the latent adds to if there is one.

    BigGAN's way to feed z into deep layers (Brock et al. 2018, arXiv 1809.11096, appendix B), without its classes. The
    maps start at zero, so that a network begins as the plain one.
    """

    def __init__(self, channels: int, latent_size: int = 0) -> None:
        """
        Args:
            channels: of the feature map.
            latent_size: of z; 0 for plain batch normalisation.
        """
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.steer = nn.Linear(latent_size, 2 * channels, bias=False) if latent_size else None
        self.reset_steer()

    def reset_steer(self) -> None:
        """Make it the plain normalisation again."""
        if self.steer is not None:
            nn.init.zeros_(self.steer.weight)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) and (N, latent_size) -> (N, C, H, W)."""
        x = self.norm(x)
        if self.steer is None:
            return x
        gain, bias = self.steer(z)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + gain) + bias
