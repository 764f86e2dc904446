"""Gradients with respect to an input whose own derivative is cheap: for R1, path lengths and latent optimisation.

The second derivative of a convolution is made of convolutions of the usual sizes; that of batch normalisation by the
batch's statistics is written in closed form.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gan_plugin.compat import is_autocast_enabled

from .layout import laid_out_like

Pair = int | Sequence[int]
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward
_FORWARD = torch.ops.aten.native_batch_norm
_BACKWARD = torch.ops.aten.native_batch_norm_backward


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
    if isinstance(padding, str) or not _convolves_twice(input, weight):
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
    if not (adjoint and _convolves_twice(input, weight)):
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


def _convolves_twice(input: torch.Tensor, weight: torch.Tensor) -> bool:
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


def batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """`torch.nn.functional.batch_norm`, arguments and result alike."""
    if not training or not _normalises_twice(input, (running_mean, running_var, weight, bias)):
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)


def _normalises_twice(input: torch.Tensor, of_channels: Iterable[torch.Tensor | None]) -> bool:
    return (
        torch.is_grad_enabled()
        # what cannot be normalised, or not by these weights, is for PyTorch to pass on or to refuse: the kernel reads
        # and writes without a look at sizes
        and input.dim() > 1
        and input.numel() > input.shape[1]
        and all(values is None or values.numel() == input.shape[1] for values in of_channels)
        and not is_autocast_enabled(input.device.type)
    )


class _BatchNorm(torch.autograd.Function):
    """y = gamma x^ + beta, with x^ = (x - mean) / deviation."""

    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        momentum: float,
        eps: float,
    ) -> torch.Tensor:
        output, mean, inverse = _FORWARD(input, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(input, weight, mean, inverse)
        ctx.eps = eps
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        input, weight, mean, inverse = ctx.saved_tensors
        outputs = _BatchNormBackward.apply(gradient, input, weight, mean, inverse, ctx.eps)
        wanted = (value if needed else None for value, needed in zip(outputs, ctx.needs_input_grad, strict=False))
        return *wanted, None, None, None, None


class _BatchNormBackward(torch.autograd.Function):
    """The gradients of x, gamma and beta.

    With s = gamma / deviation and P(u) = u - E[u] - x^ E[u x^], the gradient of x is s P(g), and P is symmetric.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gradient: torch.Tensor,
        input: torch.Tensor,
        weight: torch.Tensor | None,
        mean: torch.Tensor,
        inverse: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for_input, with_normed, sums = _project(gradient, input, weight, mean, inverse, eps)
        ctx.save_for_backward(gradient, input, weight, mean, inverse, for_input, with_normed, sums)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return for_input, with_normed, sums

    @staticmethod
    def backward(ctx: Any, along: torch.Tensor | None, *others: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if along is None and all(other is None for other in others):
            return None, None, None, None, None, None
        gradient, input, weight, mean, inverse, for_input, with_normed, sums = ctx.saved_tensors
        if along is None or torch.is_grad_enabled() or any(other is not None for other in others):
            return *_differentiate_on(gradient, input, weight, (along, *others), ctx.eps), None, None, None
        count = input.numel() / input.shape[1]
        for_gradient, along_normed, along_sum = _project(along, input, weight, mean, inverse, ctx.eps)
        # <v, P(g)> of each channel, v being `along`
        product = _sum(along * gradient) - (along_sum * sums + along_normed * with_normed) / count
        for_weight = None if weight is None else product * inverse
        for_second = None
        if ctx.needs_input_grad[1]:
            scale = inverse if weight is None else weight * inverse
            # -[E[v x^] s P(g) + E[g x^] s P(v) + s <v, P(g)> / n x^] / deviation
            of_normed = -scale * product / count * inverse.square()
            for_second = for_input * _wide(-inverse * along_normed / count, input)
            for_second.addcmul_(for_gradient, _wide(-inverse * with_normed / count, input))
            for_second.addcmul_(input, _wide(of_normed, input)).sub_(_wide(of_normed * mean, input))
        return for_gradient, for_second, for_weight, None, None, None


def _differentiate_on(
    gradient: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    along: Sequence[torch.Tensor | None],
    eps: float,
) -> tuple[torch.Tensor | None, ...]:
    """What `along` the gradients of x, gamma and beta gives the three arguments, by elementary operations.

    For what is rare: derivatives of gamma's gradient, and third ones, which PyTorch's batch norm has not.
    """
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        gamma = input.new_ones(input.shape[1]) if weight is None else weight
        # views, since the history of one argument may hold another
        at = [values.view_as(values).requires_grad_() for values in (gradient, input, gamma)]
        beta = torch.zeros_like(gamma, requires_grad=True)
        variance, mean = torch.var_mean(at[1], _axes(input), correction=0, keepdim=True)
        normed = (at[1] - mean) * (variance + eps).rsqrt()
        output = normed * _wide(at[2], input) + _wide(beta, input)
        results = torch.autograd.grad(output, (at[1], at[2], beta), at[0], create_graph=True)
        asked = [index for index, value in enumerate(along) if value is not None]
        derivatives = torch.autograd.grad(
            [results[index] for index in asked],
            at,
            [along[index] for index in asked],
            create_graph=further,
            allow_unused=True,
        )
    return (*derivatives[:2], None if weight is None else derivatives[2])


def _project(
    values: torch.Tensor,
    input: torch.Tensor,
    weight: torch.Tensor | None,
    mean: torch.Tensor,
    inverse: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """s P(u), and the sums of u x^ and of u over each channel."""
    # the kernel is fast where both lie in memory alike
    projected, with_normed, sums = _BACKWARD(
        laid_out_like(values, input), input, weight, None, None, mean, inverse, True, eps, [True, True, True]
    )
    return projected, with_normed, sums


def _sum(values: torch.Tensor) -> torch.Tensor:
    return values.sum(_axes(values))


def _axes(values: torch.Tensor) -> list[int]:
    return [axis for axis in range(values.dim()) if axis != 1]


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(C,) beside (N, C, ...)."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


# nn.BatchNorm2d calls the function in Python, which no mode sees into
_TWICE: dict[Any, Callable[..., torch.Tensor]] = {
    torch.conv2d: conv2d,
    torch.conv_transpose2d: conv_transpose2d,
    functional.batch_norm: batch_norm,
}


class CheapDoubleBackward(TorchFunctionMode):
    """Within this block, convolutions and batch norm are computed such that their second derivatives are cheap.

    Values and derivatives are those of PyTorch. Its second derivative of a convolution always takes the weight's
    gradient too, as a convolution whose kernel is a whole feature map, and that of batch norm is a chain of some thirty
    elementwise operations. Here both are made of the operations of a first derivative. Under autocast, and for forms
    that are rare in networks of images, PyTorch's own are taken.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _TWICE.get(func, func)(*args, **(kwargs or {}))


def input_gradient(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """The gradient of the sum of `function` at `at`, differentiable in whatever learns in `function`.

    Args:
        function: of a batch, such as a discriminator's verdicts, any shape.
        at: the batch; nothing flows back into where it came from.

    Returns:
        Of the shape of `at`.
    """
    at = at.detach().requires_grad_(True)
    with torch.enable_grad(), CheapDoubleBackward():
        (gradient,) = torch.autograd.grad(function(at).sum(), at, create_graph=True)
    return gradient
