"""Penalties on slopes with PyTorch's second derivatives and with ours, on COIGAN's networks."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from _benchmark_coigan import CLASSES, random_sample, small_config
from coigan.engine.game import build_game

from benchmarks.timing import Table, interleave, summarise
from gan_plugin.layers.double_backward import CheapDoubleBackward

# who differentiates the forward pass
_BY: dict[str, Callable[[], AbstractContextManager[Any]]] = {"PyTorch": nullcontext, "gan_plugin": CheapDoubleBackward}


def measure_penalties(rounds: int, device: str, width: int, size: int = 64, batch: int = 4) -> dict[str, Table]:
    """Seconds of R1 of the discriminator and of the generator's path length, gradients of all weights included.

    Args:
        rounds: how often each is timed.
        device: where.
        width, size, batch: as for COIGAN's training step.

    Returns:
        A table for each penalty, with ratios to PyTorch's second derivative.
    """
    torch.manual_seed(0)
    game = build_game(small_config(size, width, device), CLASSES)
    sample = game.collate([random_sample(size) for _ in range(batch)])

    def r1(context: AbstractContextManager[Any]) -> None:
        real = sample.defects.detach().requires_grad_(True)
        with context:
            verdicts = game.discriminator(real)
        (slope,) = torch.autograd.grad(verdicts.sum(), real, create_graph=True)
        slope.square().sum().backward(inputs=list(game.discriminator.parameters()))

    def path_length(context: AbstractContextManager[Any]) -> None:
        inputs = sample.inputs.detach().requires_grad_(True)
        with context:
            images = game.generator(inputs)
        game.path_length(images, inputs)[0].backward(inputs=list(game.generator.parameters()))

    return {
        title: summarise(
            interleave({name: lambda by=by, take=take: take(by()) for name, by in _BY.items()}, rounds, device),
            "PyTorch",
        )
        for title, take in (("R1", r1), ("path length", path_length))
    }
