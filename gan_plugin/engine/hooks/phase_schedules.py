"""The learning rates of any number of players."""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from torch.optim.lr_scheduler import LRScheduler

# "lr" is the one that Detectron2's console shows; the second is the name in the alternating mode
_NAMES = {"generator": "lr", "discriminator": "lr_disc"}


class PhaseSchedules(HookBase):
    """Steps every schedule after every iteration, and records each rate as `lr`, `lr_disc` or `lr_<phase>`."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer], schedulers: Mapping[str, LRScheduler]) -> None:
        """
        Args:
            optimizers: of all phases, by the phase's name.
            schedulers: of some of them.
        """
        self._optimizers = optimizers
        self._schedulers = schedulers

    @property
    def schedulers(self) -> list[LRScheduler]:
        """All of them."""
        return list(self._schedulers.values())

    def after_step(self) -> None:
        for name, optimizer in self._optimizers.items():
            rate = optimizer.param_groups[0]["lr"]
            self.trainer.storage.put_scalar(_NAMES.get(name, f"lr_{name}"), rate, smoothing_hint=False)
        for scheduler in self._schedulers.values():
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: scheduler.state_dict() for name, scheduler in self._schedulers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, scheduler in self._schedulers.items():
            scheduler.load_state_dict(state[name])
