"""U-Nets: pix2pix's, and one with style injection and Fourier units (the thesis' future work)."""

import math

import torch
from torch import nn

from coigan.modeling.build import GENERATOR_REGISTRY
from coigan.modeling.fourier import FourierUnit
from coigan.modeling.layers import MappingNetwork, ModulatedConv2d, StyledConv
from coigan.modeling.resnet_generator import check_multiple
from gan_plugin.modeling.discriminators.layers import build_norm

_DROPOUT_LEVELS = 3


@GENERATOR_REGISTRY.register()
class Pix2PixUNet(nn.Module):
    """4x4 convolutions of stride 2 down to the bottleneck and back, each level's features handed across.

    The paper's only randomness is dropout in the inner levels of the decoder; `dropout` 0 switches it off.
    """

    latent_size = 0

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        downs: int = 5,
        max_channels: int = 512,
        dropout: float = 0.5,
        norm: str = "BN",
    ) -> None:
        """
        Args:
            in_channels: of the image with its masks.
            width: channels of the first level; each level doubles them, up to `max_channels`.
            downs: levels.
            dropout: probability, in training only.
            norm: a normalisation of `build_norm`.
        """
        super().__init__()
        widths = [in_channels, *(min(max_channels, width * 2**level) for level in range(downs))]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level in range(downs):
            edge = level in (0, downs - 1)
            conv = nn.Conv2d(widths[level], widths[level + 1], 4, 2, 1, bias=edge)
            self.down.append(
                nn.Sequential(conv, *([] if edge else [build_norm(norm, widths[level + 1])]), nn.LeakyReLU(0.2))
            )
        for level in reversed(range(downs)):
            incoming = widths[level + 1] * (1 if level == downs - 1 else 2)
            if level == 0:
                self.up.append(nn.Sequential(nn.ConvTranspose2d(incoming, 3, 4, 2, 1), nn.Sigmoid()))
                continue
            layers = [nn.ConvTranspose2d(incoming, widths[level], 4, 2, 1, bias=False), build_norm(norm, widths[level])]
            if dropout > 0 and downs - 1 - level < _DROPOUT_LEVELS:
                layers.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*layers, nn.ReLU(inplace=True)))
        self.multiple = 2**downs

    def forward(self, inputs: torch.Tensor, latent: torch.Tensor | None = None) -> torch.Tensor:
        """(N, 3 + n, H, W) -> (N, 3, H, W) in [0, 1]; H and W are multiples of `multiple`.

        Raises:
            UserError: they are not.
        """
        check_multiple(inputs, self.multiple)
        skips = []
        for block in self.down:
            inputs = block(inputs)
            skips.append(inputs)
        inputs = self.up[0](skips.pop())
        for block in self.up[1:]:
            inputs = block(torch.cat([inputs, skips.pop()], dim=1))
        return inputs


class StyledFFC(nn.Module):
    """A fast Fourier convolution with modulated convolutions and demodulation in place of normalisation; residual."""

    def __init__(self, channels: int, global_ratio: float, style_size: int) -> None:
        """
        Args:
            channels: of input and output, local ones first.
            global_ratio: share of global ones.
            style_size: of the style.
        """
        super().__init__()
        wide = int(channels * global_ratio)
        self.local = channels - wide
        hidden = max(1, wide // 2)
        self.to_local = ModulatedConv2d(channels, self.local, 3, style_size)
        self.to_global = ModulatedConv2d(self.local, wide, 3, style_size)
        self.reduce = ModulatedConv2d(wide, hidden, 1, style_size)
        self.fourier = FourierUnit(hidden, norm="")
        self.expand = ModulatedConv2d(hidden, wide, 1, style_size)
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, inputs: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) and styles (N, S) -> (N, C, H, W)."""
        reduced = nn.functional.leaky_relu(self.reduce(inputs[:, self.local :], style), 0.2)
        spectral = self.expand(reduced + self.fourier(reduced).to(reduced.dtype), style)
        wide = (self.to_global(inputs[:, : self.local], style) + spectral) / math.sqrt(2)
        outputs = torch.cat([self.to_local(inputs, style), wide], dim=1) + self.bias
        return (inputs + nn.functional.leaky_relu(outputs, 0.2)) / math.sqrt(2)


@GENERATOR_REGISTRY.register()
class StyleFFCUNet(nn.Module):
    """An encoder of strided convolutions, a body of `StyledFFC`, and a styled decoder that gets the encoder's features.

    The style, from a random latent, decides how a defect looks; masks and image decide where and on what.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        downs: int = 3,
        blocks: int = 6,
        max_channels: int = 512,
        global_ratio: float = 0.75,
        style_size: int = 512,
        mapping_layers: int = 8,
        norm: str = "BN",
    ) -> None:
        """
        Args:
            in_channels: of the image with its masks.
            width, downs, blocks, max_channels: see ResnetGenerator.
            global_ratio: share of global channels in the body.
            style_size, mapping_layers: of the mapping network.
            norm: of the encoder, a normalisation of `build_norm`.
        """
        super().__init__()
        widths = [min(max_channels, width * 2**level) for level in range(downs + 1)]
        self.mapping = MappingNetwork(style_size, mapping_layers)
        self.encoder = nn.ModuleList()
        for level, after in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            kernel, stride = (3, 2) if level else (7, 1)
            conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, padding_mode="reflect", bias=False)
            self.encoder.append(nn.Sequential(conv, build_norm(norm, after), nn.ReLU()))
        self.body = nn.ModuleList(StyledFFC(widths[-1], global_ratio, style_size) for _ in range(blocks))
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
            self.up.append(StyledConv(before, after, style_size, upsample=True))
            self.merge.append(StyledConv(2 * after, after, style_size))
        self.to_image = ModulatedConv2d(width, 3, 1, style_size, demodulate=False)
        self.image_bias = nn.Parameter(torch.zeros(3, 1, 1))
        self.multiple, self.latent_size = 2**downs, style_size

    def forward(self, inputs: torch.Tensor, latent: torch.Tensor | None = None) -> torch.Tensor:
        """(N, 3 + n, H, W) and latents (N, L), drawn if not given, -> (N, 3, H, W) in [0, 1].

        Raises:
            UserError: H or W is not a multiple of `multiple`.
        """
        check_multiple(inputs, self.multiple)
        if latent is None:
            latent = torch.randn(len(inputs), self.latent_size, device=inputs.device)
        style = self.mapping(latent)
        skips = []
        for block in self.encoder:
            inputs = block(inputs)
            skips.append(inputs)
        inputs = skips.pop()
        for block in self.body:
            inputs = block(inputs, style)
        for up, merge in zip(self.up, self.merge, strict=True):
            inputs = merge(torch.cat([up(inputs, style), skips.pop()], dim=1), style)
        return (self.to_image(inputs, style) + self.image_bias).float().sigmoid()
