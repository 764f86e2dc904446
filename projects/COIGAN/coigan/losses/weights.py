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
    steps: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.start < math.inf and 0 <= self.end < math.inf and self.steps >= 0):
            raise UserError(
                f"A loss weight of {self.start} that becomes {self.end} in {self.steps} iterations makes no sense; "
                "WEIGHT is 0 or more, and SCHEDULE empty or (last weight, iterations)."
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
    return LossWeight(float(weight), float(end), int(steps))
