"""DCGAN (Radford et al. 2016, arXiv 1511.06434) in the layout of PyTorch's tutorial, and its bigger brother."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from .parts import LatentNorm, SelfAttention, check_channels, check_size, rising

_SLOPE = 0.2


class DCGANGenerator(nn.Module):
    """Transposed convolutions, each with batch normalisation and ReLU, the last with tanh.

    With 100 latents, width 64 and 64 pixels it is the tutorial's: 3,576,704 parameters.
    """

    def __init__(
        self,
        *,
        latent_size: int = 100,
        size: int = 64,
        image_channels: int = 3,
        width: int = 64,
        channels: Sequence[int] = (),
        first_side: int = 4,
        last: str = "up",
        slope: float = 0.0,
        attention: Sequence[int] = (),
        normalise_attention: bool = False,
        normalise: bool = False,
        skip_z: bool = False,
    ) -> None:
        """
        Args:
            latent_size: length of z.
            size: side of the images in pixels, a power of two.
            image_channels: 3, or 4 with alpha.
            width: channels of the last layer but one; those before it have up to 8 times as many.
            channels: of all layers but the last, in place of `width`.
            first_side: of the first feature map: 4 (4x4 kernel, no padding) or 2 (4x4, stride 2, padding 1).
            last: "up" doubles the side in the last layer; "flat" keeps it, with a 3x3 kernel.
            slope: of leaky ReLU; 0 for ReLU.
            attention: sides of the feature maps that a self-attention follows.
            normalise_attention, normalise: spectral normalisation of these modules, or of all layers.
            skip_z: whether z steers the normalisation of every layer.

        Raises:
            UserError: the size is no power of two, or `channels` does not fit it.
        """
        super().__init__()
        check_size(size, 8)
        doublings = int(math.log2(size // first_side)) - (last == "up")
        widths = tuple(channels) or rising(width, doublings + 1)[::-1]
        check_channels("MODEL.GENERATOR.CHANNELS", widths, doublings + 1, size)
        wrap = spectral_norm if normalise else nn.Identity()
        self.latent_size = latent_size
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.attention = nn.ModuleDict()
        before, side = latent_size, first_side
        for index, after in enumerate(widths):
            stride, padding = (1, 0) if index == 0 and first_side == 4 else (2, 1)
            self.layers.append(wrap(nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)))
            self.norms.append(LatentNorm(after, latent_size if skip_z else 0))
            if side in attention:
                self.attention[str(index)] = SelfAttention(after, normalise=normalise_attention)
            before, side = after, side * 2
        kernel, stride = (4, 2) if last == "up" else (3, 1)
        self.to_image = wrap(nn.ConvTranspose2d(before, image_channels, kernel, stride, 1, bias=False))
        self.activation = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(N, latent_size) -> (N, image_channels, size, size) in [-1, 1]."""
        x = z[:, :, None, None]
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            x = self.activation(norm(layer(x), z))
            if str(index) in self.attention:
                x = self.attention[str(index)](x)
        return self.to_image(x).tanh()


class DCGANDiscriminator(nn.Module):
    """4x4 convolutions of stride 2 with batch normalisation (but for the first) and leaky ReLU 0.2; then one verdict.

    With width 64 and 64 pixels it is the tutorial's: 2,765,568 parameters. There is no sigmoid: losses take logits.
    """

    def __init__(
        self,
        *,
        size: int = 64,
        image_channels: int = 3,
        width: int = 64,
        channels: Sequence[int] = (),
        outputs: int = 1,
        norm: bool = True,
        attention: Sequence[int] = (),
        normalise_attention: bool = False,
        normalise: bool = False,
    ) -> None:
        """
        Args:
            size, image_channels, attention, normalise_attention, normalise: as for the generator.
            width: channels of the first layer; those after it have up to 8 times as many.
            channels: of all layers but the last, in place of `width`; the last covers the side that is left.
            outputs: 1 for verdicts, one more for each label; the length of z makes it an encoder.
            norm: whether there is batch normalisation.

        Raises:
            UserError: the size is no power of two, or there are too many `channels` for it.
        """
        super().__init__()
        check_size(size, 8)
        widths = tuple(channels) or rising(width, int(math.log2(size)) - 2)
        side = size >> len(widths)
        if side < 1:
            check_channels("MODEL.DISCRIMINATOR.CHANNELS", widths, int(math.log2(size)) - 2, size)
        wrap = spectral_norm if normalise else nn.Identity()
        layers: list[nn.Module] = []
        before = image_channels
        for index, after in enumerate(widths):
            layers.append(wrap(nn.Conv2d(before, after, 4, 2, 1, bias=False)))
            if norm and index:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(_SLOPE, inplace=True))
            if size >> (index + 1) in attention:
                layers.append(SelfAttention(after, normalise=normalise_attention))
            before = after
        layers.append(wrap(nn.Conv2d(before, outputs, side, bias=False)))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, image_channels, size, size) in [-1, 1] -> (N,) logits, or (N, outputs)."""
        verdicts = self.layers(images).flatten(1)
        return verdicts.squeeze(1) if verdicts.shape[1] == 1 else verdicts
