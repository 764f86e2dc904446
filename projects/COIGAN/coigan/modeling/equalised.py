"""Layers of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958): equalised weights, FIR filters, batch statistics."""

import math

import torch
import torch.nn.functional as F
from torch import nn

# keeps the variance of what passes a leaky ReLU
_GAIN = math.sqrt(2)
_SLOPE = 0.2
_FIR = torch.tensor([1.0, 3.0, 3.0, 1.0])


def scaled_leaky_relu(inputs: torch.Tensor) -> torch.Tensor:
    """Leaky ReLU of slope 0.2, times sqrt 2."""
    return F.leaky_relu(inputs, _SLOPE) * _GAIN


class EqualConv2d(nn.Module):
    """A convolution whose weights are N(0, 1) and scaled by He's constant when they act (equalised learning rate)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, activate: bool = True
    ) -> None:
        """
        Args:
            activate: end with `scaled_leaky_relu`.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.stride, self.padding, self.activate = stride, padding, activate
        self.gain = _GAIN if activate else 1.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, K, H', W')."""
        factor = self.scale * self.gain
        if _work(inputs) < _work(self.weight):
            return self.convolve(inputs * factor, self.weight)
        return self.convolve(inputs, self.weight * factor)

    def convolve(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The same, with `scale` and `gain` in one of the arguments already."""
        # sqrt 2 times a leaky ReLU is the leaky ReLU of sqrt 2 times its input
        outputs = F.conv2d(inputs, weight, self.bias * self.gain, self.stride, self.padding)
        return F.leaky_relu_(outputs, _SLOPE) if self.activate else outputs


def _work(factor: torch.Tensor) -> int:
    """Numbers that scaling `factor` reads: once, and once more for its gradient."""
    return factor.numel() * (1 + factor.requires_grad)


class EqualLinear(nn.Module):
    """A linear layer with equalised learning rate."""

    def __init__(
        self, inputs: int, outputs: int, activate: bool = False, rate: float = 1.0, bias_start: float = 0.0
    ) -> None:
        """
        Args:
            activate: end with `scaled_leaky_relu`.
            rate: how fast it learns compared with the rest.
            bias_start: initial value of all biases.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias_start / rate))
        self.scale = rate / math.sqrt(inputs)
        self.rate, self.activate = rate, activate

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, I) -> (N, O)."""
        # a batch has fewer numbers than the weights, and the scale may go to either
        outputs = F.linear(inputs * self.scale, self.weight, self.bias * self.rate)
        return scaled_leaky_relu(outputs) if self.activate else outputs


def blur(inputs: torch.Tensor, padding: int, stride: int = 1, gain: float = 1.0) -> torch.Tensor:
    """(N, C, H, W) smoothed by the filter [1, 3, 3, 1] along both axes, with zeros around, every `stride`-th kept.

    The sum of the filter is `gain`.
    """
    # One pass of 4x4 is faster than one along each axis, on a CPU at least.
    return F.conv2d(inputs, _kernel(inputs, gain), stride=stride, padding=padding, groups=inputs.shape[1])


def _kernel(like: torch.Tensor, gain: float) -> torch.Tensor:
    taps = (_FIR / _FIR.sum()).to(like)
    return (gain * taps[:, None] * taps).expand(like.shape[1], 1, 4, 4)


def halve(inputs: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, H/2, W/2) by the FIR filter; H and W are even."""
    return blur(inputs, padding=1, stride=2)


def double(inputs: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W) by the FIR filter."""
    # gain 4: three of four samples that the filter meets are zeros
    return F.conv_transpose2d(inputs, _kernel(inputs, 4), stride=2, padding=1, groups=inputs.shape[1])


class MinibatchStd(nn.Module):
    """Adds a channel with the mean standard deviation within groups of samples (Karras et al. 2018, arXiv 1710.10196).

    A batch that the group's size does not divide is dealt out as evenly as possible.
    """

    def __init__(self, group: int = 4) -> None:
        """
        Args:
            group: samples of a group, at most.
        """
        super().__init__()
        self.group = group

    def forward(self, inputs: torch.Tensor, batches: int = 1) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + 1, H, W).

        Args:
            batches: of equal size, which `inputs` holds one behind the other; no group has members of two.
        """
        values = inputs.new_empty(len(inputs), 1, 1, 1)
        size = len(inputs) // batches
        count = math.ceil(size / self.group)
        for start in range(0, len(inputs), size):
            for first in range(start, start + count):
                group = slice(first, start + size, count)
                spread = (inputs[group].float().var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
                values[group] = spread.to(values.dtype)
        return torch.cat([inputs, values.expand(-1, 1, *inputs.shape[2:])], dim=1)
