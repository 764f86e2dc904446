"""The order of numbers in memory: fused optimizers go through it without a look at strides."""

import torch


def laid_out_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`values` (the shape of `like`) in the memory order of `like`; a copy only where they differ."""
    if values.stride() == like.stride():
        return values
    return torch.empty_like(like, dtype=values.dtype).copy_(values)


def lay_out_states(optimizer: torch.optim.Optimizer) -> None:
    """Put each state that has its parameter's shape into the parameter's memory order.

    A checkpoint keeps the order that it was written with, so one of a network in another order would be read askew.
    """
    for parameter, states in optimizer.state.items():
        for name, value in states.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                states[name] = laid_out_like(value, parameter)
