"""Style injection: the mapping network and modulated convolutions (Karras et al. 2020, arXiv 1912.04958)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .equalised import EqualLinear, double, scaled_leaky_relu


class MappingNetwork(nn.Module):
    """A latent vector, normalised, to a style."""

    def __init__(self, size: int = 512, layers: int = 8, rate: float = 0.01) -> None:
        """
        Args:
            size: of latent and style.
            rate: how fast it learns compared with the rest.
        """
        super().__init__()
        self.layers = nn.Sequential(*(EqualLinear(size, size, activate=True, rate=rate) for _ in range(layers)))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """(N, L) -> (N, L)."""
        return self.layers(latent * (latent.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by the style, and whose output is brought back to variance one.

    The paper scales each sample's weights and convolves in groups; scaling input and output instead is the same
    (its appendix B), lets all samples share one convolution, and is faster.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, style_size: int, demodulate: bool = True
    ) -> None:
        """
        Args:
            kernel: odd; zeros are padded so that the size stays.
            demodulate: bring the output to variance one.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.style = EqualLinear(style_size, in_channels, bias_start=1.0)
        self.padding, self.demodulate = kernel // 2, demodulate

    def forward(self, inputs: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) and styles (N, S) -> (N, K, H, W)."""
        factors = self.style(style)
        weight = self.weight * self.scale
        outputs = F.conv2d(inputs * factors[:, :, None, None], weight, padding=self.padding)
        if not self.demodulate:
            return outputs
        norm = (factors.float().square() @ weight.float().square().sum((2, 3)).t() + 1e-8).rsqrt()
        return outputs * norm[:, :, None, None].to(outputs.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, perhaps at twice the size, with noise of learnt strength, bias and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, style_size: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_size)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.upsample = upsample

    def forward(self, inputs: torch.Tensor, style: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """(N, C, H, W) and styles (N, S) -> (N, K, H, W), or twice that size; `noise` is drawn if not given."""
        outputs = self.conv(double(inputs) if self.upsample else inputs, style)
        if noise is None:
            noise = torch.randn_like(outputs[:, :1])
        return scaled_leaky_relu(outputs + self.noise_strength * noise + self.bias)
