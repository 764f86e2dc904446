"""Layers of StyleGAN2 and SWAGAN: equalised, modulated, resampling; and what a discriminator looks at first."""

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


class MappingNetwork(nn.Module):
    """A latent vector, normalised, to a style."""

    def __init__(self, size: int = 512, layers: int = 8, rate: float = 0.01) -> None:
        """
        Args:
            size: of latent and style.
            rate: how fast it learns compared with the rest.
        """
        super().__init__()
        self.layers = nn.Sequential(*(EqualLinear(size, size, activate=True, rate=rate) for _ in range(layers)))

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """(N, L) -> (N, L)."""
        return self.layers(latent * (latent.square().mean(1, keepdim=True) + 1e-8).rsqrt())


class ModulatedConv2d(nn.Module):
    """A convolution whose input channels are scaled by the style, and whose output is brought back to variance one.

    The paper scales each sample's weights and convolves in groups; scaling input and output instead is the same
    (its appendix B), lets all samples share one convolution, and is faster.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, style_size: int, demodulate: bool = True
    ) -> None:
        """
        Args:
            kernel: odd; zeros are padded so that the size stays.
            demodulate: bring the output to variance one.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.scale = 1 / math.sqrt(in_channels * kernel**2)
        self.style = EqualLinear(style_size, in_channels, bias_start=1.0)
        self.padding, self.demodulate = kernel // 2, demodulate

    def forward(self, inputs: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) and styles (N, S) -> (N, K, H, W)."""
        factors = self.style(style)
        weight = self.weight * self.scale
        outputs = F.conv2d(inputs * factors[:, :, None, None], weight, padding=self.padding)
        if not self.demodulate:
            return outputs
        norm = (factors.float().square() @ weight.float().square().sum((2, 3)).t() + 1e-8).rsqrt()
        return outputs * norm[:, :, None, None].to(outputs.dtype)


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, perhaps at twice the size, with noise of learnt strength, bias and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, style_size: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_size)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.upsample = upsample

    def forward(self, inputs: torch.Tensor, style: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """(N, C, H, W) and styles (N, S) -> (N, K, H, W), or twice that size; `noise` is drawn if not given."""
        outputs = self.conv(double(inputs) if self.upsample else inputs, style)
        if noise is None:
            noise = torch.randn_like(outputs[:, :1])
        return scaled_leaky_relu(outputs + self.noise_strength * noise + self.bias)


def stretch_contrast(canvases: torch.Tensor, contrast: float) -> torch.Tensor:
    """Each colour canvas of each sample, stretched `contrast` times around its mean grey; black stays black. Ours.

    On black the silhouette of a defect is a far greater step than all that is within it, and silhouettes are alike in
    real and painted canvases; a discriminator learns nothing else for long. Stretching loses nothing, and lets it see
    texture at once.

    Args:
        canvases: (N, 3k, H, W), k images in colour one after another; pixels above 0 in any colour count as painted.
        contrast: 1 for canvases as they are.

    Returns:
        The same shape, mean grey of each canvas as before.
    """
    if contrast == 1:
        return canvases
    colours = canvases.unflatten(1, (-1, 3))
    painted = (colours > 0).any(2, keepdim=True).to(canvases.dtype)
    pixels = painted.sum((2, 3, 4), keepdim=True).clamp(min=1)
    mean = (colours * painted).sum((2, 3, 4), keepdim=True) / (3 * pixels)
    return (painted * (mean + contrast * (colours - mean))).flatten(1, 2)
