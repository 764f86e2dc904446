"""SWAGAN's generator, which draws masks or base tiles from a random vector (Gal et al. 2021, arXiv 2102.06108)."""

import torch
from torch import nn

from gan_plugin.errors import UserError

from .equalised import double
from .modulated import MappingNetwork, ModulatedConv2d, StyledConv
from .wavelet import dwt, iwt

_START = 4


class WaveletGenerator(nn.Module):
    """StyleGAN2's synthesis in wavelet space: every level adds to the wavelets, which are resampled as an image."""

    def __init__(
        self,
        size: int,
        channels: int = 3,
        style_size: int = 512,
        mapping_layers: int = 8,
        width: int = 512,
        channel_multiplier: int = 2,
    ) -> None:
        """
        Args:
            size: of the image, a power of two from 16 on.
            channels: of the image.
            style_size, mapping_layers: of the mapping network.
            width, channel_multiplier: channels, as in WaveletDiscriminator.

        Raises:
            UserError: `size` is not of that kind.
        """
        super().__init__()
        levels = size.bit_length() - 1 - 2  # sides 4, 8, ..., size / 2
        if size != 2 ** (levels + 2) or levels < 2:
            raise UserError(f"INPUT.SIZE is {size}; a generator of masks needs a power of two, 16 or more.")

        def width_at(side: int) -> int:
            return width if side <= 32 else width * 32 * channel_multiplier // side

        self.mapping = MappingNetwork(style_size, mapping_layers)
        self.start = nn.Parameter(torch.randn(1, width, _START, _START))
        self.first = StyledConv(width, width, style_size)
        self.up, self.same, self.to_bands = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.to_bands.append(ModulatedConv2d(width, 4 * channels, 1, style_size, demodulate=False))
        for level in range(1, levels):
            before, after = width_at(_START * 2 ** (level - 1)), width_at(_START * 2**level)
            self.up.append(StyledConv(before, after, style_size, upsample=True))
            self.same.append(StyledConv(after, after, style_size))
            self.to_bands.append(ModulatedConv2d(after, 4 * channels, 1, style_size, demodulate=False))
        self.bias = nn.Parameter(torch.zeros(4 * channels, 1, 1))
        self.size, self.channels, self.latent_size = size, channels, style_size
        self.layers = 1 + len(self.up)

    def styles(self, latent: torch.Tensor, other: torch.Tensor | None = None, crossover: int = 0) -> torch.Tensor:
        """Styles (N, layers, S) of `latent` (N, L); from layer `crossover` on those of `other` (style mixing)."""
        styles = self.mapping(latent)[:, None].repeat(1, self.layers, 1)
        if other is not None:
            styles[:, crossover:] = self.mapping(other)[:, None]
        return styles

    def draw(self, styles: torch.Tensor) -> torch.Tensor:
        """Styles (N, layers, S) -> images (N, C, size, size), unbounded; about [-1, 1] once trained."""
        hidden = self.first(self.start.expand(len(styles), -1, -1, -1), styles[:, 0])
        bands = self.to_bands[0](hidden, styles[:, 0]) + self.bias
        for level, (up, same) in enumerate(zip(self.up, self.same, strict=True), start=1):
            style = styles[:, level]
            hidden = same(up(hidden, style), style)
            bands = dwt(double(iwt(bands))) + self.to_bands[level](hidden, style)
        return iwt(bands)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Latents (N, L) -> images (N, C, size, size)."""
        return self.draw(self.styles(latent))
