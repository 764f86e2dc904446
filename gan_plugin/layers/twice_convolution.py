"""Convolutions whose second derivative is made of convolutions of the usual sizes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gan_plugin.compat import is_autocast_enabled

Pair = int | Sequence[int]
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward


class _Geometry(NamedTuple):
    """What a convolution is besides its weights."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    transposed: bool
    output_padding: tuple[int, int]
    groups: int


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> torch.Tensor:
    """`torch.conv2d`, arguments and result alike."""
    if isinstance(padding, str) or not _applies(input, weight):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    geometry = _Geometry(_pair(stride), _pair(padding), _pair(dilation), False, (0, 0), groups)
    return _Convolution.apply(input, weight.view_as(weight), bias, geometry)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> torch.Tensor:
    """`torch.conv_transpose2d`, arguments and result alike."""
    geometry = _Geometry(_pair(stride), _pair(padding), _pair(dilation), True, _pair(output_padding), groups)
    # a wider output padding belongs to no convolution of that stride
    adjoint = all(extra < step for extra, step in zip(geometry.output_padding, geometry.stride, strict=True))
    if not (adjoint and _applies(input, weight)):
        return torch.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _Convolution.apply(input, weight.view_as(weight), bias, geometry)


class _Convolution(torch.autograd.Function):
    """A convolution whose backward is the adjoint convolution, an operation with a backward of its own.

    The weight has to be the result of an operation, since the engine does not answer for leaves.
    """

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: _Geometry
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        ctx.geometry = geometry
        return torch.convolution(input, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        input, weight = ctx.saved_tensors
        geometry: _Geometry = ctx.geometry
        for_input = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            adjoint = geometry._replace(
                transposed=not geometry.transposed,
                output_padding=(0, 0) if geometry.transposed else _left_over(input, gradient, weight, geometry),
            )
            for_input = torch.convolution(gradient, weight, None, *adjoint)
        # `needs_input_grad` tells who can learn, not whether this pass asks for it
        if ctx.needs_input_grad[1] and torch._C._will_engine_execute_node(ctx.next_functions[1][0]):
            mask = [False, True, False]
            for_weight = _CONVOLUTION_BACKWARD(gradient, input, weight, None, *geometry, mask)[1]
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3))
        return for_input, for_weight, for_bias, None


def _left_over(input: torch.Tensor, output: torch.Tensor, weight: torch.Tensor, geometry: _Geometry) -> tuple[int, int]:
    """Rows and columns at the end of `input` that the stride leaves out, and that its gradient has all the same."""
    rows, columns = (
        input.shape[side + 2]
        - (output.shape[side + 2] - 1) * geometry.stride[side]
        + 2 * geometry.padding[side]
        - geometry.dilation[side] * (weight.shape[side + 2] - 1)
        - 1
        for side in (0, 1)
    )
    return rows, columns


def _applies(input: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        input.dim() == 4
        and input.is_floating_point()
        and torch.is_grad_enabled()
        and (input.requires_grad or weight.requires_grad)
        and not is_autocast_enabled(input.device.type)
    )


def _pair(value: Pair) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, last = value[0], value[-1]
    return first, last
