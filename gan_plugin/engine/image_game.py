"""What a GAN of images is to our trainer: networks, and the phases in which each player learns."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Losses = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Phase:
    """One player's step, after StyleGAN's list of phases: who learns, by which optimizer, from what, and how often.

    Attributes:
        name: of the player, such as "generator" or "discriminator".
        networks: that learn; every other network of the game is a constant meanwhile.
        optimizer: over their parameters.
        losses: (what `ImageGame.begin` returned) -> named scalars; their sum is minimised. Names of a discriminator's
            begin with `loss_disc_`.
        every: iterations between two steps, the first at iteration 0.
        gain: factor of the sum. A lazy regulariser counts `every` times (Karras et al. 2020, arXiv 1912.04958, 3.1).
        clip_norm: greatest Euclidean norm of all its gradients together; 0 for no clipping.
        clip_value: greatest absolute value of each entry of a gradient; 0 for no clipping.
    """

    name: str
    networks: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer
    losses: Callable[[Any], Losses]
    every: int = 1
    gain: float = 1.0
    clip_norm: float = 0.0
    clip_value: float = 0.0

    def is_due(self, iteration: int) -> bool:
        """Whether this phase is played at `iteration`; a subclass may have another rhythm."""
        return iteration % self.every == 0

    def parameters(self) -> list[nn.Parameter]:
        """All that learns, in a fixed order."""
        return [parameter for network in self.networks for parameter in network.parameters()]


class ImageGame(nn.Module, ABC):
    """All networks of a GAN as submodules, one of them `generator`, and the losses of its players.

    A game puts its statistics into the event storage itself; `gan/image/d_real`, `d_fake` and `diversity` are shown on
    the console and watched by the collapse alarm.

    Attributes:
        generator: whose average and samples are kept.
        simultaneous: whether all players learn from the same weights and then move together, so that what `begin`
            computes serves all of them; their phases then must not share parameters. Else they move in turn.
    """

    generator: nn.Module
    simultaneous: bool = False

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """In the order in which they are played; asked for once, when a trainer is built."""

    @abstractmethod
    def collate(self, items: list[Any]) -> Any:
        """A batch on the game's device, from what the loader yields."""

    def begin(self, batch: Any, iteration: int, keep_graph: bool) -> Any:
        """What the phases of this iteration get; here, where every network may learn, they can share a forward pass.

        Args:
            batch: of `collate`.
            iteration: its number.
            keep_graph: False with gradient accumulation, where the graphs of all batches would not fit.
        """
        return batch

    def picture(self) -> torch.Tensor | None:
        """A grid of samples of the same latents every time, (3, H, W) in [0, 1]; None if there is nothing to show."""
        return None


@contextmanager
def only_learning(game: nn.Module, networks: Sequence[nn.Module]) -> Iterator[None]:
    """Within the block only the parameters of `networks` need a gradient."""
    learning = {id(parameter) for network in networks for parameter in network.parameters()}
    frozen = [p for p in game.parameters() if p.requires_grad and id(p) not in learning]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
