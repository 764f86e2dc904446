"""Fast Fourier convolution (Chi et al. 2020; as LaMa uses it, Suvorov et al. 2022, arXiv 2109.07161; thesis 2.5.1).

Local and global channels are one tensor here, the local ones first. Two of the four paths then share a convolution
(both lead to the local channels), and normalisation and activation run once.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from coigan.config import check_value
from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators.layers import build_norm


class FourierUnit(nn.Module):
    """A 1x1 convolution of the spectrum, real and imaginary parts side by side, so that every output sees all pixels.

    Always in single precision: half precision loses the small coefficients beside the mean.
    """

    def __init__(self, channels: int, norm: str = "BN") -> None:
        """
        Args:
            channels: of input and output.
            norm: a normalisation of `build_norm`, or "" for none.
        """
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, 2 * channels, 1, bias=not norm)
        self.norm = build_norm(norm, 2 * channels) if norm else nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W), float32."""
        with torch.autocast(inputs.device.type, enabled=False):
            spectrum = torch.fft.rfft2(inputs.float(), norm="ortho")
            parts = self.norm(self.conv(torch.cat([spectrum.real, spectrum.imag], dim=1))).relu()
            real, imaginary = parts.chunk(2, dim=1)
            # a real signal has H x W samples, which an odd W cannot be told from its spectrum's width alone
            size = (inputs.shape[-2], inputs.shape[-1])
            return torch.fft.irfft2(torch.complex(real.contiguous(), imaginary.contiguous()), s=size, norm="ortho")


class SpectralTransform(nn.Module):
    """The global path: reduce to half the channels, Fourier unit, and expand (thesis table 2.1)."""

    def __init__(self, in_channels: int, out_channels: int, combine: str = "sum", norm: str = "BN") -> None:
        """
        Args:
            in_channels, out_channels: of the global part.
            combine: "sum" adds the Fourier unit's output to its input, then a bare 1x1 convolution expands (LaMa);
                "concat" stacks both and expands with normalisation and ReLU (the thesis' table).
            norm: a normalisation of `build_norm`.

        Raises:
            UserError: `combine` is neither.
        """
        super().__init__()
        check_value("MODEL.GENERATOR.SPECTRAL", combine)
        hidden = max(1, out_channels // 2)
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), build_norm(norm, hidden), nn.ReLU(inplace=True)
        )
        self.fourier = FourierUnit(hidden, norm)
        self.concat = combine == "concat"
        self.expand: nn.Module = nn.Conv2d(hidden * (2 if self.concat else 1), out_channels, 1, bias=False)
        if self.concat:
            self.expand = nn.Sequential(self.expand, build_norm(norm, out_channels), nn.ReLU(inplace=True))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H, W)."""
        reduced = self.reduce(inputs)
        seen = self.fourier(reduced)
        return self.expand(torch.cat([reduced, seen], dim=1) if self.concat else reduced + seen)


class FFC(nn.Module):
    """3x3 fast Fourier convolution of stride 1 with reflected borders, before normalisation.

    local out = conv(local) + conv(global); global out = conv(local) + spectral transform(global).
    """

    def __init__(self, channels: int, global_ratio: float, combine: str = "sum", norm: str = "BN") -> None:
        """
        Args:
            channels: of input and output together.
            global_ratio: share of global channels, in (0, 1).
            combine, norm: see SpectralTransform.

        Raises:
            UserError: a part would have no channels.
        """
        super().__init__()
        wide = int(channels * global_ratio)
        self.local = channels - wide
        if not 0 < wide < channels:
            raise UserError(f"MODEL.GENERATOR.GLOBAL_RATIO is {global_ratio}; set it to a number between 0 and 1.")
        self.to_local = nn.Conv2d(channels, self.local, 3, bias=False)
        self.to_global = nn.Conv2d(self.local, wide, 3, bias=False)
        self.spectral = SpectralTransform(wide, wide, combine, norm)
        self._initialise()

    def _initialise(self) -> None:
        # PyTorch's default bound follows the fan-in, and here two convolutions share one weight.
        with torch.no_grad():
            for part in self.to_local.weight.split([self.local, self.to_local.in_channels - self.local], dim=1):
                bound = 1 / math.sqrt(part[0].numel())
                part.uniform_(-bound, bound)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        padded = F.pad(inputs, (1, 1, 1, 1), mode="reflect")
        wide = self.to_global(padded[:, : self.local]) + self.spectral(inputs[:, self.local :])
        return torch.cat([self.to_local(padded), wide], dim=1)


class FFCResidual(nn.Module):
    """Two FFCs, each with normalisation and ReLU, and an added skip (thesis 2.5.1)."""

    def __init__(self, channels: int, global_ratio: float, combine: str = "sum", norm: str = "BN") -> None:
        """Arguments as FFC."""
        super().__init__()
        self.layers = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (
                    FFC(channels, global_ratio, combine, norm),
                    build_norm(norm, channels),
                    nn.ReLU(inplace=True),
                )
            )
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return inputs + self.layers(inputs)
