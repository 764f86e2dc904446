"""The generator of Pix2Pix: a U-Net (Isola et al. 2017, arXiv 1611.07004; thesis 2.4)."""

import torch
from torch import nn

from gan_plugin.modeling.discriminators.layers import build_norm

from .registry import GENERATOR_REGISTRY
from .resnet_generator import check_multiple

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
