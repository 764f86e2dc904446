"""SWAGAN's networks (Gal et al. 2021, arXiv 2102.06108): they see and make wavelets."""

import torch
from torch import nn

from coigan.modeling.build import DISCRIMINATOR_REGISTRY
from coigan.modeling.layers import (
    EqualConv2d,
    EqualLinear,
    MappingNetwork,
    MinibatchStd,
    ModulatedConv2d,
    StyledConv,
    blur,
    double,
    halve,
    stretch_contrast,
)
from gan_plugin.errors import UserError


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


_LEAST_SIDE = 4


class _Down(nn.Module):
    """Two convolutions, the second of them after a blur and with stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.same = EqualConv2d(in_channels, in_channels, 3, padding=1)
        self.down = EqualConv2d(in_channels, out_channels, 3, stride=2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # the filter can bring the equalised weights' scale along
        gain = self.down.scale * self.down.gain
        return self.down.convolve(blur(self.same(inputs), padding=2, gain=gain), self.down.weight)


@DISCRIMINATOR_REGISTRY.register()
class WaveletDiscriminator(nn.Module):
    """One verdict on an image of `size` x `size` pixels; its wavelets enter at every level.

    SWAGAN goes down by inverse transform, FIR filter, transform. The transform of an inverse transform is nothing, so
    the image itself is halved from level to level here and transformed once at each: the same numbers for less.
    """

    # see judge_pair
    keeps_batches_apart = True

    def __init__(
        self,
        in_channels: int,
        size: int,
        disc_width: int = 512,
        channel_multiplier: int = 3,
        stddev_group: int = 4,
        contrast: float = 1.0,
    ) -> None:
        """
        Args:
            in_channels: of the image.
            size: 4, 5, 6 or 7 times a power of two from 4 on, such as 64, 160 or 256.
            disc_width: channels at sides up to 32.
            channel_multiplier: side r above 32 has disc_width * 32 / r times so many (768, 384, 192 at 64, 128, 256).
            stddev_group: of MinibatchStd.
            contrast: of what it looks at, see `stretch_contrast`.

        Raises:
            UserError: `size` is not of that kind.
        """
        super().__init__()
        side, downs = size / 2, 0
        while side >= 2 * _LEAST_SIDE:
            side, downs = side / 2, downs + 1
        if side != int(side) or side < _LEAST_SIDE or not downs:
            raise UserError(f"INPUT.SIZE is {size}; set it to 4, 5, 6 or 7 times a power of two, such as 64 or 256.")

        def width(level: int) -> int:
            """Channels at the nominal side 4 * 2**level."""
            nominal = _LEAST_SIDE * 2**level
            return disc_width if nominal <= 32 else disc_width * 32 * channel_multiplier // nominal

        # The first level has the width of the image's side, not of its wavelets', as in SWAGAN's networks.
        widths = [width(downs + 1), *(width(level) for level in reversed(range(downs)))]
        self.from_image = nn.ModuleList(EqualConv2d(4 * in_channels, channels, 3, padding=1) for channels in widths)
        self.blocks = nn.ModuleList(_Down(a, b) for a, b in zip(widths, widths[1:], strict=False))
        last = widths[-1]
        self.statistics = MinibatchStd(stddev_group)
        self.final = EqualConv2d(last + 1, last, 3, padding=1)
        self.verdict = nn.Sequential(
            nn.Flatten(), EqualLinear(last * int(side) ** 2, last, activate=True), EqualLinear(last, 1)
        )
        self.size, self.contrast = size, contrast

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The outputs of all levels on (N, C, size, size), the finest first."""
        images = stretch_contrast(images, self.contrast)
        hidden = self.from_image[0](dwt(images))
        outputs = []
        for block, entry in zip(self.blocks, list(self.from_image)[1:], strict=True):
            images = halve(images)
            hidden = block(hidden) + entry(dwt(images))
            outputs.append(hidden)
        return outputs

    def forward(self, images: torch.Tensor, batches: int = 1) -> torch.Tensor:
        """(N, C, size, size) -> logits (N,).

        Args:
            batches: of equal size, which `images` holds one behind the other; each is judged as if it were alone.
        """
        return self.judge(self.features(images), batches)

    def judge(self, features: list[torch.Tensor], batches: int = 1) -> torch.Tensor:
        """The logits (N,) that `features` lead to."""
        return self.verdict(self.final(self.statistics(features[-1], batches)))[:, 0].float()


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
