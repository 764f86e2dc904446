"""Encoder, residual body, decoder: LaMa-fourier and its relatives, which differ in the body only."""

from collections.abc import Callable

import torch
from torch import nn

from coigan.config import check_value
from coigan.modeling.build import GENERATOR_REGISTRY
from coigan.modeling.fourier import FFCResidual
from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators.layers import build_norm


class ResnetGenerator(nn.Module):
    """7x7 convolution, strided convolutions, residual blocks, up steps, 7x7 convolution, sigmoid.

    LaMa's first fast Fourier convolutions have no global input: they are plain convolutions, and so they are here.
    """

    # drawn anew for every image where a generator needs one; this one gets its randomness from the masks' noise
    latent_size = 0

    def __init__(
        self,
        block: Callable[[int], nn.Module],
        in_channels: int,
        out_channels: int = 3,
        width: int = 64,
        downs: int = 3,
        blocks: int = 8,
        max_channels: int = 1024,
        norm: str = "BN",
        upsample: str = "transposed",
    ) -> None:
        """
        Args:
            block: makes a residual block of so many channels.
            in_channels, out_channels: of the image with its masks, and of the image.
            width: channels of the first layer; every down step doubles them, up to `max_channels`.
            downs, blocks: how many of them.
            norm: a normalisation of `build_norm`.
            upsample: "transposed" convolutions, as in LaMa; or "resize", bilinear and then a convolution, which leaves
                no checkerboard (Odena et al. 2016, "Deconvolution and checkerboard artifacts").

        Raises:
            UserError: `upsample` is neither.
        """
        super().__init__()
        check_value("MODEL.GENERATOR.UPSAMPLE", upsample)
        widths = [min(max_channels, width * 2**level) for level in range(downs + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 7, padding=3, padding_mode="reflect", bias=False),
            *_norm_act(norm, width),
        ]
        for before, after in zip(widths, widths[1:], strict=False):
            conv = nn.Conv2d(before, after, 3, 2, 1, padding_mode="reflect", bias=False)
            layers += [conv, *_norm_act(norm, after)]
        layers += [block(widths[-1]) for _ in range(blocks)]
        for before, after in zip(widths[::-1], widths[-2::-1], strict=False):
            layers += [*_double(before, after, upsample), *_norm_act(norm, after)]
        layers += [nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect"), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        self.multiple = 2**downs

    def forward(self, inputs: torch.Tensor, latent: torch.Tensor | None = None) -> torch.Tensor:
        """(N, 3 + n, H, W) -> (N, 3, H, W) in [0, 1]; H and W are multiples of `multiple`.

        Raises:
            UserError: they are not.
        """
        check_multiple(inputs, self.multiple)
        return self.layers(inputs)


def _double(before: int, after: int, upsample: str) -> list[nn.Module]:
    if upsample == "transposed":
        return [nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1)]
    conv = nn.Conv2d(before, after, 3, padding=1, padding_mode="reflect", bias=False)
    return [nn.Upsample(scale_factor=2, mode="bilinear"), conv]


def _norm_act(norm: str, channels: int) -> list[nn.Module]:
    return [build_norm(norm, channels), nn.ReLU(inplace=True)]


def check_multiple(inputs: torch.Tensor, multiple: int) -> None:
    """Raise a UserError unless height and width of `inputs` are multiples of `multiple`."""
    height, width = inputs.shape[-2:]
    if height % multiple or width % multiple:
        raise UserError(
            f"An image of {width}x{height} pixels does not fit this generator, whose sides must be multiples of "
            f"{multiple}; choose another tile size."
        )


@GENERATOR_REGISTRY.register()
class LamaFourier(ResnetGenerator):
    """LaMa-fourier (Suvorov et al. 2022; thesis 2.5.1): residual blocks of fast Fourier convolutions."""

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        downs: int = 3,
        blocks: int = 8,
        max_channels: int = 1024,
        global_ratio: float = 0.75,
        spectral: str = "sum",
        norm: str = "BN",
        upsample: str = "transposed",
    ) -> None:
        """
        Args:
            global_ratio, spectral: see FFC.
            others: see ResnetGenerator.
        """

        def block(channels: int) -> nn.Module:
            return FFCResidual(channels, global_ratio, spectral, norm)

        super().__init__(block, in_channels, 3, width, downs, blocks, max_channels, norm, upsample)


class _Residual(nn.Module):
    """Two normalised convolutions and an added skip (Wang et al. 2018, arXiv 1711.11585)."""

    def __init__(self, channels: int, conv: Callable[[int], nn.Module], norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(channels), *_norm_act(norm, channels), conv(channels), build_norm(norm, channels)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.layers(inputs)


@GENERATOR_REGISTRY.register()
class Pix2PixHD(ResnetGenerator):
    """The global generator of pix2pixHD (Wang et al. 2018, arXiv 1711.11585), with a sigmoid in place of its tanh."""

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        downs: int = 3,
        blocks: int = 9,
        max_channels: int = 1024,
        norm: str = "BN",
        upsample: str = "transposed",
    ) -> None:
        """Arguments as ResnetGenerator."""

        def conv(channels: int) -> nn.Module:
            return nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)

        def block(channels: int) -> nn.Module:
            return _Residual(channels, conv, norm)

        super().__init__(block, in_channels, 3, width, downs, blocks, max_channels, norm, upsample)


class MultiDilatedConv(nn.Module):
    """3x3 convolution whose channels are split between several dilations (LaMa's supplement, arXiv 2109.07161)."""

    def __init__(self, channels: int, dilations: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        """
        Args:
            channels: of input and output, a multiple of the number of dilations.
        """
        super().__init__()
        share = channels // len(dilations)
        self.convs = nn.ModuleList(
            nn.Conv2d(share, share, 3, padding=dilation, dilation=dilation, bias=False) for dilation in dilations
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        parts = inputs.chunk(len(self.convs), dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)


@GENERATOR_REGISTRY.register()
class MultiDilated(ResnetGenerator):
    """The global generator with convolutions of several dilations, LaMa's comparison to Fourier convolutions."""

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        downs: int = 3,
        blocks: int = 9,
        max_channels: int = 1024,
        norm: str = "BN",
        upsample: str = "transposed",
    ) -> None:
        """Arguments as ResnetGenerator."""

        def mixed(channels: int) -> nn.Module:
            # a 1x1 convolution lets the dilations see each other
            return nn.Sequential(MultiDilatedConv(channels), nn.Conv2d(channels, channels, 1, bias=False))

        def block(channels: int) -> nn.Module:
            return _Residual(channels, mixed, norm)

        super().__init__(block, in_channels, 3, width, downs, blocks, max_channels, norm, upsample)
