"""Segmentation networks with one output, defect or background: a small U-Net, and torchvision's."""

from collections.abc import Callable

import torch
from torch import nn
from torchvision.models import segmentation

from coigan.choices import NETWORKS
from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators.layers import build_norm


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597), with batch normalisation and padding that keeps the size."""

    def __init__(self, width: int = 32, levels: int = 4) -> None:
        """
        Args:
            width: channels of the first level; each level doubles them.
            levels: how often the image is halved.
        """
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in zip(widths, widths[1:], strict=False))
        self.merge = nn.ModuleList(_double(2 * a, a) for a in widths[:-1])
        self.verdict = nn.Conv2d(width, 1, 1)
        self.multiple = 2**levels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> logits (N, H, W)."""
        height, width = images.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        hidden = nn.functional.pad(images, (0, right, 0, down), mode="replicate")
        skips = []
        for level, block in enumerate(self.down):
            hidden = block(nn.functional.max_pool2d(hidden, 2) if level else hidden)
            skips.append(hidden)
        hidden = skips.pop()
        for up, merge in zip(list(self.up)[::-1], list(self.merge)[::-1], strict=True):
            hidden = merge(torch.cat([skips.pop(), up(hidden)], dim=1))
        return self.verdict(hidden)[:, 0, :height, :width]


def _double(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), build_norm("BN", after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class _Torchvision(nn.Module):
    """One of torchvision's networks, without pretrained weights."""

    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.network = make(weights=None, weights_backbone=None, num_classes=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> logits (N, H, W)."""
        return self.network(images)["out"][:, 0]


_TORCHVISION = {
    "fcn_r50": segmentation.fcn_resnet50,
    "fcn_r101": segmentation.fcn_resnet101,
    "deeplabv3_r50": segmentation.deeplabv3_resnet50,
    "deeplabv3_r101": segmentation.deeplabv3_resnet101,
    "deeplabv3_mobilenet": segmentation.deeplabv3_mobilenet_v3_large,
}


def build_segmenter(name: str) -> nn.Module:
    """The network called `name`, one of NETWORKS, with fresh weights.

    Raises:
        UserError: there is none of that name.
    """
    if name == "unet":
        return UNet()
    if name == "unet_small":
        return UNet(width=8, levels=3)
    if name in _TORCHVISION:
        return _Torchvision(_TORCHVISION[name])
    raise UserError(f"--model is {name!r}, which is unknown; use one of {', '.join(NETWORKS)}.")
