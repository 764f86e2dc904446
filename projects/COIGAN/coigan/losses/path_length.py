"""Path length regularisation: equal steps of the input are to make equal steps of the image (thesis eq 4.4, 4.5)."""

import torch
from torch import nn

from gan_plugin.modeling.stability import mean_over_processes

_RATE = 0.01


def path_lengths(images: torch.Tensor, at: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """||J^T y|| of each sample, differentiable, J the Jacobian of its image with respect to its input.

    Args:
        images: (N, 3, H, W), computed from `at`.
        at: the generator's input (N, C, H, W), whose gradient counts as one vector a sample; or styles
            (N, layers, S), whose squared length is the mean over layers (Karras et al. 2020, arXiv 1912.04958, 3.2).
        noise: y, of the images' shape.

    Returns:
        (N,).
    """
    (gradient,) = torch.autograd.grad((images * noise).sum(), at, create_graph=True)
    squares = gradient.float().square()
    squares = squares.sum(2).mean(1) if at.dim() == 3 else squares.flatten(1).sum(1)
    # The root has no derivative at 0.
    return (squares + 1e-12).sqrt()


class PathLength(nn.Module):
    """E (||J^T y|| - a)^2, y normal of variance 1 / HW, a the moving average of the lengths (equations 4.4 and 4.5).

    The average is a buffer, so that a checkpoint holds it.
    """

    average: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(()))

    def forward(self, images: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The penalty and the mean length, two scalars; moves the average. Arguments as in `path_lengths`."""
        noise = torch.randn_like(images) / (images.shape[-2] * images.shape[-1]) ** 0.5
        lengths = path_lengths(images, at, noise)
        mean = mean_over_processes(lengths.mean())
        self.average += _RATE * (mean - self.average)
        # a copy, since the buffer moves on before the penalty's gradient is taken
        return (lengths - self.average.clone()).square().mean(), mean
