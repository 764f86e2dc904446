"""pix2pixHD's discriminator of n layers: a map of verdicts on patches (Wang et al. 2018, arXiv 1711.11585)."""

import torch
from torch import nn

from coigan.modeling.build import DISCRIMINATOR_REGISTRY
from coigan.modeling.layers import stretch_contrast
from gan_plugin.modeling.discriminators.layers import build_norm

_MOST_CHANNELS = 512


@DISCRIMINATOR_REGISTRY.register()
class PatchDiscriminator(nn.Module):
    """4x4 convolutions with padding 2: `patch_layers` of stride 2 but the last, of stride 1, then the verdicts."""

    def __init__(
        self, in_channels: int, disc_width: int = 64, patch_layers: int = 4, norm: str = "BN", contrast: float = 1.0
    ) -> None:
        """
        Args:
            in_channels: of the image.
            disc_width: channels of the first layer; each doubles them, up to 512.
            patch_layers: normalised layers after the first.
            norm: a normalisation of `build_norm`.
            contrast: of what it looks at, see `stretch_contrast`.
        """
        super().__init__()
        self.contrast = contrast
        widths = [min(_MOST_CHANNELS, disc_width * 2**level) for level in range(patch_layers + 1)]
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(in_channels, widths[0], 4, 2, 2), nn.LeakyReLU(0.2))])
        for level, (before, after) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            stride = 2 if level < patch_layers else 1
            conv = nn.Conv2d(before, after, 4, stride, 2, bias=False)
            self.blocks.append(nn.Sequential(conv, build_norm(norm, after), nn.LeakyReLU(0.2)))
        self.verdict = nn.Conv2d(widths[-1], 1, 4, 1, 2)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The outputs of all layers but the verdicts, the finest first."""
        images, outputs = stretch_contrast(images, self.contrast), []
        for block in self.blocks:
            images = block(images)
            outputs.append(images)
        return outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> logits (N, H', W')."""
        return self.judge(self.features(images))

    def judge(self, features: list[torch.Tensor]) -> torch.Tensor:
        """The logits (N, H', W') that `features` lead to."""
        return self.verdict(features[-1])[:, 0].float()
