"""How much a loss counts, and how that changes during training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gan_plugin.errors import UserError


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
        UserError: a value makes no sense.
    """
    if len(schedule) not in (0, 2):
        raise UserError(f"SCHEDULE is {tuple(schedule)}; leave it empty or give (last weight, iterations).")
    end, steps = schedule or (weight, 0)
    return LossWeight(weight, end, steps)


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
