"""The memory order of an optimizer's state, which a fused optimizer goes through without a look at strides."""

import torch

from gan_plugin.layers.layout import laid_out_like


def lay_out_states(optimizer: torch.optim.Optimizer) -> None:
    """Put each state that has its parameter's shape into the parameter's memory order.

    A checkpoint keeps the order that it was written with, so one of a network in another order would be read askew.
    """
    for parameter, states in optimizer.state.items():
        for name, value in states.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                states[name] = laid_out_like(value, parameter)
