"""A discriminator that is far ahead rests until the generator has caught up."""

import torch
from torch import nn

from gan_plugin.processes import mean_over_processes

_MEMORY = 0.9


class AccuracyGate(nn.Module):
    """Closed while the running accuracy of the discriminator is above a limit.

    The running mean is a buffer, so that a resumed run goes on where it stopped.
    """

    accuracy: torch.Tensor

    def __init__(self, limit: float) -> None:
        """
        Args:
            limit: in (0, 1); the share of right verdicts above which the discriminator does not learn.
        """
        super().__init__()
        self.limit = limit
        self.register_buffer("accuracy", torch.tensor(0.5))

    def update(self, accuracy: float, count: int) -> bool:
        """Take in the share of right verdicts on `count` samples, 0 for none, of this process; True if open."""
        counted = torch.tensor([accuracy * count, count], dtype=torch.float32, device=self.accuracy.device)
        right = mean_over_processes(counted)
        if right[1] > 0:
            self.accuracy.lerp_(right[0] / right[1], 1 - _MEMORY)
        return bool(self.accuracy <= self.limit)
