"""Batch normalisation by the batch's statistics, with a second derivative in closed form."""

from typing import Any

import torch
from torch.nn import functional

_FORWARD = torch.ops.aten.native_batch_norm
_BACKWARD = torch.ops.aten.native_batch_norm_backward


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
    lone = input.numel() == input.shape[1]
    autocast = torch.is_autocast_enabled(input.device.type)
    if not training or lone or autocast or not torch.is_grad_enabled():
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps)


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
    """The gradients of x, gamma and beta, of which that of x can be differentiated once more.

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
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, along: torch.Tensor | None, *others: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if any(other is not None for other in others):
            raise RuntimeError("Only the gradient of batch norm's input can be differentiated a second time here.")
        if along is None:
            return None, None, None, None, None, None
        gradient, input, weight, mean, inverse, for_input, with_normed, sums = ctx.saved_tensors
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
    values = torch.empty_like(input).copy_(values) if values.stride() != input.stride() else values
    projected, with_normed, sums = _BACKWARD(
        values, input, weight, None, None, mean, inverse, True, eps, [True, True, True]
    )
    return projected, with_normed, sums


def _sum(values: torch.Tensor) -> torch.Tensor:
    return values.sum([axis for axis in range(values.dim()) if axis != 1])


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(C,) beside (N, C, ...)."""
    return values.view(1, -1, *[1] * (like.dim() - 2))
