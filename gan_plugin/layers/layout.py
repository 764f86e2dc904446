"""The order of a tensor's numbers in memory, which some kernels go through without a look at strides."""

from functools import partial
from typing import Any

import torch
from torch import nn

# the widest block of channels that oneDNN's kernels work on: AVX-512's; AVX2's is 8
_BLOCK = 16


def laid_out_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`values` (the shape of `like`) in the memory order of `like`; a copy only where they differ."""
    if values.stride() == like.stride():
        return values
    return torch.empty_like(like, dtype=values.dtype).copy_(values)


def to_channels_last(network: nn.Module) -> nn.Module:
    """`network` itself, its kernels and what they make in the order (N, H, W, C), which convolutions like best.

    That goes for a CPU and for a GPU's tensor cores; tools/benchmark.py has the gain.

    oneDNN's gradient of the weights of a 1x1 convolution with a stride writes past its workspace in this order where an
    image has fewer channels than a block (uxlfoundation/oneDNN#6035, not corrected in PyTorch 2.15): the process dies
    sooner or later. Such a convolution gets the pixels that it would have looked at, and no stride, which is the same.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and _writes_astray(layer):
            layer.register_forward_pre_hook(partial(_every, layer.stride))
            layer.stride = (1, 1)
    return network.to(memory_format=torch.channels_last)


def _writes_astray(layer: nn.Conv2d) -> bool:
    pointwise = layer.kernel_size == (1, 1) and layer.padding in ("valid", (0, 0))
    return pointwise and max(layer.stride) > 1 and layer.in_channels // layer.groups < _BLOCK


def _every(stride: tuple[int, ...], layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    images, *others = inputs
    return images[..., :: stride[0], :: stride[1]], *others


def lay_out_states(optimizer: torch.optim.Optimizer) -> None:
    """Put each state that has its parameter's shape into the parameter's memory order.

    A checkpoint keeps the order that it was written with, so one of a network in another order would be read askew.
    """
    for parameter, states in optimizer.state.items():
        for name, value in states.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                states[name] = laid_out_like(value, parameter)
