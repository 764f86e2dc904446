"""Losses of a segmenter with few defect pixels (COIGAN's second code)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from gan_plugin.errors import UserError

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
    if name not in LOSSES:
        raise UserError(f"--loss is {name!r}, which is unknown; use one of {', '.join(LOSSES)}.")
    weights = torch.where(masks.flatten(1).any(1), _DAMAGED, _CLEAN)
    return (weights * LOSSES[name](logits, masks)).sum() / weights.sum()
