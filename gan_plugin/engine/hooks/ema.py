"""A moving average of the generator, which often predicts better than the last weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import nn

from gan_plugin.engine.checkpoint import with_versions


class GeneratorEMA(HookBase):
    """Averages the generator's weights after every step; buffers are copied, the discriminator is left out.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that the random start is forgotten in a short run too.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """
        Args:
            model: whose generator is averaged.
            decay: in [0, 1), the weight of the old average at each step.
        """
        self._decay = decay
        self._updates = 0
        players = getattr(model, "adversaries", None)
        of_player = set() if players is None else {id(t) for t in (*players.parameters(), *players.buffers())}
        self._weights = {n: p for n, p in model.named_parameters() if id(p) not in of_player}
        self._buffers = {n: b for n, b in model.named_buffers() if id(b) not in of_player}
        state = model.state_dict()
        self._kept = with_versions(dict.fromkeys(state, torch.empty(0)), state)
        self._average = {n: t.detach().clone() for n, t in self._live().items()}

    def before_train(self) -> None:
        # The weights of a checkpoint are loaded after the hooks are built.
        if self._updates == 0:
            self._copy(self._live(), self._average)

    @torch.no_grad()
    def after_step(self) -> None:
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight, 1 - decay)
        for name, buffer in self._buffers.items():
            self._average[name].copy_(buffer)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model holds the averaged weights."""
        live = self._live()
        original = {name: tensor.detach().clone() for name, tensor in live.items()}
        self._copy(self._average, live)
        try:
            yield
        finally:
            self._copy(original, live)

    def generator_state(self) -> dict[str, torch.Tensor]:
        """The average as a state dict that the plain model of the same config loads."""
        return with_versions({name: t for name, t in self._average.items() if name in self._kept}, self._kept)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._updates = state["updates"]
        self._copy(state["average"], self._average)

    def _live(self) -> dict[str, torch.Tensor]:
        return {**self._weights, **self._buffers}

    @staticmethod
    @torch.no_grad()
    def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])
