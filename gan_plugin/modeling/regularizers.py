"""What holds a discriminator's slope: R1 and the gradient penalty, computed now and then, in single precision."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gan_plugin.errors import UserError
from gan_plugin.layers.double_backward import input_gradient

Judge = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Regularizer:
    """The penalties that are switched on.

    Attributes:
        r1_gamma: gamma of R1, 0 for none.
        gp_weight: weight of the gradient penalty, 0 for none.
        every: iterations between two penalties, each of which then counts so many times (lazy regularisation,
            Karras et al. 2020, arXiv 1912.04958, section 3.1).

    Raises:
        UserError: a value is negative or not finite, or `every` is below 1.
    """

    r1_gamma: float = 0.0
    gp_weight: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        for key, value, least in (
            ("R1_GAMMA", self.r1_gamma, 0),
            ("GP_WEIGHT", self.gp_weight, 0),
            ("EVERY", self.every, 1),
        ):
            if not least <= value < math.inf:
                raise UserError(f"MODEL.GAN.REG.{key} is {value}; set it to a finite number, {least} or more.")

    def is_due(self, iteration: int) -> bool:
        """Whether there is a penalty at this iteration."""
        return (self.r1_gamma > 0 or self.gp_weight > 0) and iteration % self.every == 0

    def __call__(self, judge: Judge, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """The penalty of `judge` at (R, C, S, S) real and fake samples: a scalar, scaled for its rarity."""
        penalty = real.new_zeros((), dtype=torch.float32)
        # Half precision would lose the gradient of a gradient.
        with torch.autocast(real.device.type, enabled=False):
            if self.r1_gamma > 0:
                penalty = penalty + self.r1_gamma / 2 * r1(judge, real.float())
            if self.gp_weight > 0:
                penalty = penalty + self.gp_weight * gradient_penalty(judge, real.float(), fake.float())
        return penalty * self.every


def r1(judge: Judge, real: torch.Tensor) -> torch.Tensor:
    """Mean squared norm of the verdict's gradient at real samples (Mescheder et al. 2018, arXiv 1801.04406, eq 9)."""
    return _slopes(judge, real).square().mean()


def gradient_penalty(judge: Judge, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of the slope between real and fake to 1 (Gulrajani et al. 2017, arXiv 1704.00028, eq 3)."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    return (_slopes(judge, real * share + fake * (1 - share)) - 1).square().mean()


def _slopes(judge: Judge, at: torch.Tensor) -> torch.Tensor:
    """(R, C, S, S) to the norm (R,) of the gradient of each sample's verdict, differentiable."""
    gradient = input_gradient(judge, at)
    # The square root has no derivative at 0, where a discriminator that is still flat begins.
    return (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
