"""Losses of pixels and patches under masks with soft borders, path lengths, and how much a loss counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from coigan.config import check_value
from gan_plugin.errors import UserError
from gan_plugin.modeling.stability import mean_over_processes


def odd_kernel(kernel: int) -> int:
    """The kernel's side, made odd by adding 1 where it is even; 0 becomes 1, which does not smooth."""
    return kernel + 1 - kernel % 2


def smooth_mask(masks: torch.Tensor, kernel: int) -> torch.Tensor:
    """The sum over all classes of their masks, each pixel replaced by the mean of a square around it, zeros outside.

    Args:
        masks: (N, n, H, W) in [0, 1].
        kernel: side of the square; see `odd_kernel`.

    Returns:
        (N, 1, H, W), in [0, n].
    """
    side = odd_kernel(kernel)
    union = masks.sum(1, keepdim=True)
    if side == 1:
        return union
    # A square's mean is the mean along one axis of the means along the other.
    rows = F.avg_pool2d(union, (side, 1), stride=1, padding=(side // 2, 0))
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, side // 2))


def weight_map(masks: torch.Tensor, kernel: int, inside: float, outside: float) -> torch.Tensor:
    """W = inside * M + outside * (1 - M), M the `smooth_mask` of (N, n, H, W) masks: (N, 1, H, W)."""
    smooth = smooth_mask(masks, kernel)
    return inside * smooth + outside * (1 - smooth)


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum(weights * values) / sum(weights), both broadcast in the numerator; 0 where no weight is left.

    With three channels of values to one of weights this is three times the mean, as in the source.
    """
    # Where all weights are zero, as with an empty mask and no background, the numerator is zero as well.
    return (weights * values).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def smooth_masked_l1(
    fake: torch.Tensor, base: torch.Tensor, masks: torch.Tensor, kernel: int, inside: float, outside: float
) -> torch.Tensor:
    """sum(W |fake - base|) / sum(W) (thesis 4.4.1): the background has to stay, the defect's area may change.

    W has one channel and the images have three, so the value is three times the weighted mean, as in the source.

    Args:
        fake, base: (N, 3, H, W).
        masks: (N, n, H, W) in [0, 1].
        kernel, inside, outside: of `weight_map`.
    """
    return weighted_mean((fake - base).abs(), weight_map(masks, kernel, inside, outside))


def plain_distance(fake: torch.Tensor, base: torch.Tensor, kind: str, reduction: str) -> torch.Tensor:
    """Absolute ("l1") or squared ("mse") error of two images, its mean or sum ("mean", "sum").

    Raises:
        UserError: another reduction.
    """
    distance = F.l1_loss if kind == "l1" else F.mse_loss
    return distance(fake, base, reduction=check_value("LOSS.REDUCTION", reduction))


def masked_patch_loss(real: torch.Tensor, fake: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """-E[log D(x)] - E[log D(fake) o (1 - m) + log(1 - D(fake)) o m], D the sigmoid of a verdict.

    Args:
        real, fake: maps of verdicts (N, H', W').
        masks: (N, n, H, W); a patch that any of them touches counts as rebuilt.
    """
    union = masks.amax(1, keepdim=True)
    touched = (F.adaptive_max_pool2d(union, fake.shape[-2:])[:, 0] > 0).to(fake.dtype)
    on_fake = touched * F.softplus(fake) + (1 - touched) * F.softplus(-fake)
    return F.softplus(-real).mean() + on_fake.mean()


_RATE = 0.01


def path_lengths(images: torch.Tensor, at: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """||J^T y|| of each sample, differentiable, J the Jacobian of its image with respect to its input.

    Args:
        images: (N, 3, H, W), computed from `at`.
        at: the generator's input (N, C, H, W), whose gradient counts as one vector a sample; or styles
            (N, layers, S), whose squared length is the mean over layers (Karras et al. 2020, arXiv 1912.04958, 3.2).
        noise: y, of the images' shape.

    Returns:
        (N,).
    """
    (gradient,) = torch.autograd.grad((images * noise).sum(), at, create_graph=True)
    squares = gradient.float().square()
    squares = squares.sum(2).mean(1) if at.dim() == 3 else squares.flatten(1).sum(1)
    # The root has no derivative at 0.
    return (squares + 1e-12).sqrt()


class PathLength(nn.Module):
    """E (||J^T y|| - a)^2, y normal of variance 1 / HW, a the moving average of the lengths (equations 4.4 and 4.5).

    The average is a buffer, so that a checkpoint holds it.
    """

    average: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(()))

    def forward(self, images: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The penalty and the mean length, two scalars; moves the average. Arguments as in `path_lengths`."""
        noise = torch.randn_like(images) / (images.shape[-2] * images.shape[-1]) ** 0.5
        lengths = path_lengths(images, at, noise)
        mean = mean_over_processes(lengths.mean())
        self.average += _RATE * (mean - self.average)
        # a copy, since the buffer moves on before the penalty's gradient is taken
        return (lengths - self.average.clone()).square().mean(), mean


@dataclass(frozen=True)
class LossWeight:
    """A weight that goes in a straight line from `start` to `end` over `steps` iterations and stays there.

    COIGAN's code has such schedules, up and down, and uses none.

    Raises:
        UserError: a weight is negative or not finite, or `steps` is negative.
    """

    start: float
    end: float
    steps: float = 0

    def __post_init__(self) -> None:
        if not _is_amount(self.start):
            raise UserError(f"WEIGHT is {self.start!r}; set it to a finite number, 0 or more.")
        if not (_is_amount(self.end) and _is_amount(self.steps) and self.steps == int(self.steps)):
            raise UserError(
                f"SCHEDULE is ({self.end!r}, {self.steps!r}); leave it empty, or give (last weight, "
                "iterations), two numbers from 0 on."
            )

    def at(self, iteration: int) -> float:
        """The weight at `iteration`."""
        if iteration >= self.steps:
            return self.end
        return self.start + (self.end - self.start) * iteration / self.steps

    @property
    def on(self) -> bool:
        """Whether it is above zero at any time."""
        return self.start > 0 or self.end > 0


def loss_weight(weight: float, schedule: Sequence[float] = ()) -> LossWeight:
    """A `LossWeight` from config values: WEIGHT, and SCHEDULE, which is empty or (last weight, iterations).

    Raises:
        UserError: a value is not usable.
    """
    if len(schedule) not in (0, 2):
        raise UserError(f"SCHEDULE is {tuple(schedule)}; leave it empty or give (last weight, iterations).")
    end, steps = schedule or (weight, 0)
    return LossWeight(weight, end, steps)


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
