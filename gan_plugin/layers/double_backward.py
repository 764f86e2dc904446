"""Gradients with respect to an input whose own derivative is cheap: for R1, path lengths and latent optimisation."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .twice_batch_norm import batch_norm
from .twice_convolution import conv2d, conv_transpose2d

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
