"""ResNet18 and ResNet34 (He et al. 2015, arXiv 1512.03385) as discriminator, and their mirror images as generator."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from .parts import LatentNorm, SelfAttention, check_size

_EXTRA_BLOCKS = 2
# what is done to every convolution: spectral normalisation or nothing
Wrap = Callable[[nn.Module], nn.Module]


class ResNetDiscriminator(nn.Module):
    """The stem, four stages of basic blocks, the mean over positions, and one linear verdict.

    With blocks (3, 4, 6, 3) and width 64 its body is torchvision's ResNet34: 21,284,672 parameters, 21,285,185 with the
    verdict. The source document says (3, 4, 6, 4) and 21,298,918, which exclude each other: a fourth block in the last
    stage would make about 26.0 million.
    """

    def __init__(
        self,
        *,
        size: int = 64,
        image_channels: int = 3,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        outputs: int = 1,
        attention: Sequence[int] = (),
        normalise_attention: bool = False,
        normalise: bool = False,
        slope: float = 0.2,
    ) -> None:
        """
        Args:
            size: side of the images in pixels, a power of two.
            image_channels: 3, or 4 with alpha.
            width: channels of the first stage; each later one has twice as many.
            blocks: of the four stages.
            outputs: 1 for verdicts, one more for each label.
            attention: sides of the feature maps that a self-attention follows.
            normalise_attention, normalise: spectral normalisation of these modules, or of all convolutions.
            slope: of leaky ReLU; 0 for ReLU, as in ResNet.

        Raises:
            UserError: the size is no power of two, 32 or more.
        """
        super().__init__()
        check_size(size, 32)
        wrap: Wrap = spectral_norm if normalise else nn.Identity()
        stem = [wrap(nn.Conv2d(image_channels, width, 7, 2, 3, bias=False)), nn.BatchNorm2d(width), _activation(slope)]
        layers: list[nn.Module] = list(stem)
        side, before = size // 2, width

        def attend() -> None:
            if side in attention:
                layers.append(SelfAttention(before, normalise=normalise_attention))

        attend()
        layers.append(nn.MaxPool2d(3, 2, 1))
        side //= 2
        for stage, count in enumerate(blocks):
            for number in range(count):
                stride = 2 if stage and number == 0 else 1
                layers.append(_DownBlock(before, width << stage, stride, slope, wrap))
                before, side = width << stage, side // stride
            attend()
        self.layers = nn.Sequential(*layers)
        verdict = nn.Linear(before, outputs)
        self.verdict = spectral_norm(verdict) if normalise else verdict

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, image_channels, size, size) in [-1, 1] -> (N,) logits, or (N, outputs)."""
        verdicts = self.verdict(self.layers(images).mean((2, 3)))
        return verdicts.squeeze(1) if verdicts.shape[1] == 1 else verdicts


class ResNetGenerator(nn.Module):
    """The mirror image: z to 4x4, four stages of blocks that end in an upsampling block, one transposed convolution.

    The last layer is "only one transposed convolution" (source document, 4.3.2). With blocks (3, 4, 6, 3), width 64 and
    64 pixels it has 23,300,864 parameters, 1.5 % more than the document's 22,958,884, whose details it does not give.
    """

    def __init__(
        self,
        *,
        latent_size: int = 100,
        size: int = 64,
        image_channels: int = 3,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        slope: float = 0.0,
        attention: Sequence[int] = (),
        normalise_attention: bool = False,
        normalise: bool = False,
        skip_z: bool = False,
        upsample: str = "transposed",
    ) -> None:
        """
        Args:
            latent_size: length of z.
            width: channels of the last stage.
            blocks: of the four stages in the discriminator's order, so the last one is the generator's first. Below 64
                pixels the first stages are left out, above it some of two blocks are put before them.
            skip_z: whether z steers the normalisation of every block.
            upsample: how a side is doubled: by a "transposed" convolution of 4x4, or by "resize", bilinear and then a
                convolution of 3x3, which leaves no checkerboard (Odena et al. 2016, "Deconvolution and checkerboard
                artifacts").
            size, image_channels, slope, attention, normalise_attention, normalise: as for the discriminator.

        Raises:
            UserError: the size is no power of two, 32 or more.
        """
        super().__init__()
        check_size(size, 32)
        stages = int(math.log2(size)) - 2
        counts = ([_EXTRA_BLOCKS] * max(0, stages - len(blocks)) + list(blocks)[::-1])[-stages:]
        widths = [width << min(len(blocks) - 1, stages - 1 - index) for index in range(stages)]
        wrap: Wrap = spectral_norm if normalise else nn.Identity()
        steer = latent_size if skip_z else 0
        double = partial(_double, upsample=upsample, wrap=wrap)
        # repeated pixels beside resized ones would leave a tartan
        enlarge = "bilinear" if upsample == "resize" else "nearest"
        self.latent_size = latent_size
        self.project = wrap(nn.ConvTranspose2d(latent_size, widths[0], 4, bias=False))
        self.norm = LatentNorm(widths[0], steer)
        self.activation = _activation(slope)
        self.blocks = nn.ModuleList()
        side = 4
        for index, (count, channels) in enumerate(zip(counts, widths, strict=True)):
            last = index == stages - 1
            plain = count if last else count - 1
            self.blocks.extend(_UpBlock(channels, channels, steer, slope, wrap) for _ in range(plain))
            if side in attention:
                self.blocks.append(_Unsteered(SelfAttention(channels, normalise=normalise_attention)))
            if not last:
                self.blocks.append(_UpBlock(channels, widths[index + 1], steer, slope, wrap, double, enlarge))
                side *= 2
        self.to_image = double(widths[-1], image_channels)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(N, latent_size) -> (N, image_channels, size, size) in [-1, 1]."""
        x = self.activation(self.norm(self.project(z[:, :, None, None]), z))
        for block in self.blocks:
            x = block(x, z)
        return self.to_image(x).tanh()


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)


class _DownBlock(nn.Module):
    """ResNet's basic block."""

    def __init__(self, before: int, after: int, stride: int, slope: float, wrap: Wrap) -> None:
        super().__init__()
        self.body = nn.Sequential(
            wrap(nn.Conv2d(before, after, 3, stride, 1, bias=False)),
            nn.BatchNorm2d(after),
            _activation(slope),
            wrap(nn.Conv2d(after, after, 3, 1, 1, bias=False)),
            nn.BatchNorm2d(after),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            self.skip = nn.Sequential(
                wrap(nn.Conv2d(before, after, 1, stride, bias=False)),
                nn.BatchNorm2d(after),
            )
        self.activation = _activation(slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.body(x) + self.skip(x))


def _double(before: int, after: int, upsample: str, wrap: Wrap) -> nn.Module:
    if upsample == "transposed":
        return wrap(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
    conv = wrap(nn.Conv2d(before, after, 3, 1, 1, bias=False))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv)


class _UpBlock(nn.Module):
    """The basic block in reverse; with `double` the second convolution doubles the side."""

    def __init__(
        self,
        before: int,
        after: int,
        steer: int,
        slope: float,
        wrap: Wrap,
        double: Callable[[int, int], nn.Module] | None = None,
        enlarge: str = "nearest",
    ) -> None:
        super().__init__()
        self.first = wrap(nn.Conv2d(before, before, 3, 1, 1, bias=False))
        self.first_norm = LatentNorm(before, steer)
        self.second = double(before, after) if double else wrap(nn.Conv2d(before, after, 3, 1, 1, bias=False))
        self.second_norm = LatentNorm(after, steer)
        self.skip: nn.Module = nn.Identity()
        if double:
            # a 1x1 convolution commutes with enlarging, and costs a quarter before it
            self.skip = nn.Sequential(
                wrap(nn.Conv2d(before, after, 1, bias=False)),
                nn.BatchNorm2d(after),
                nn.Upsample(scale_factor=2, mode=enlarge),
            )
        self.activation = _activation(slope)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        body = self.activation(self.first_norm(self.first(x), z))
        return self.activation(self.second_norm(self.second(body), z) + self.skip(x))


class _Unsteered(nn.Module):
    """A layer among steered ones that does not look at z."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return self.layer(x)
