"""Segmentation networks with one output, defect or background, and losses for few defect pixels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import segmentation

from coigan.choices import NETWORKS
from gan_plugin.modeling.discriminators.layers import build_norm
from gan_plugin.rules import check_name


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
    check_name("--model", name, NETWORKS)
    if name == "unet":
        return UNet()
    return UNet(width=8, levels=3) if name == "unet_small" else _Torchvision(_TORCHVISION[name])


_DAMAGED, _CLEAN = 1.0, 0.01
_DEFECT, _BACKGROUND = 1.2, 0.1
_SCALE = 2.3
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0
_BORDER = 3

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def dice(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 - 2 |p g| / (|p| + |g|) of each image, p the sigmoid: the mean of defect and background weighted 1.2 to 0.1.

    Args:
        logits: (N, H, W), unbounded.
        masks: (N, H, W), 0 or 1.

    Returns:
        (N,) in [0, 1].
    """
    probabilities = logits.sigmoid()
    total = logits.new_zeros(len(logits))
    for weight, p, g in ((_DEFECT, probabilities, masks), (_BACKGROUND, 1 - probabilities, 1 - masks)):
        shared = (p * g).sum((1, 2))
        total = total + weight * (1 - (2 * shared + 1) / (p.sum((1, 2)) + g.sum((1, 2)) + 1))
    return total / (_DEFECT + _BACKGROUND)


def log_cosh_dice(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """2.3 log cosh of `dice` of each image (Jadon 2020, arXiv 2006.14822)."""
    return _SCALE * torch.cosh(dice(logits, masks)).log()


def cross_entropy(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of each image, defect pixels weighted 1.2 and the others 0.1."""
    weights = torch.where(masks > 0, _DEFECT, _BACKGROUND)
    return F.binary_cross_entropy_with_logits(logits, masks, weights, reduction="none").mean((1, 2))


def focal(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Focal loss of each image, alpha 0.25 and gamma 2 (Lin et al. 2017, arXiv 1708.02002)."""
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    right = torch.exp(-entropy)
    alpha = torch.where(masks > 0, _FOCAL_ALPHA, 1 - _FOCAL_ALPHA)
    return (alpha * (1 - right) ** _FOCAL_GAMMA * entropy).mean((1, 2))


def border(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of each image over the pixels within 3 of a defect's outline; 0 without any."""
    side = 2 * _BORDER + 1
    grown = F.max_pool2d(masks[:, None], side, 1, _BORDER)[:, 0]
    shrunk = 1 - F.max_pool2d(1 - masks[:, None], side, 1, _BORDER)[:, 0]
    near = grown - shrunk
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return (near * entropy).sum((1, 2)) / near.sum((1, 2)).clamp(min=1)


LOSSES: dict[str, Loss] = {
    "log_cosh_dice": log_cosh_dice,
    "dice": dice,
    "bce": cross_entropy,
    "focal": focal,
    "border": border,
}


def segmentation_loss(name: str, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The mean of the loss called `name` over images, those without a defect weighted 0.01.

    Raises:
        UserError: there is none of that name.
    """
    loss = LOSSES[check_name("--loss", name, LOSSES)]
    weights = torch.where(masks.flatten(1).any(1), _DAMAGED, _CLEAN)
    return (weights * loss(logits, masks)).sum() / weights.sum()
