"""Self-attention over the positions of a feature map (Zhang et al. 2018, arXiv 1805.08318, equations 1 to 3)."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class SelfAttention(nn.Module):
    """y = gamma * o + x with o_j = v(sum_i b_ji h(x_i)), b_ji = softmax over i of f(x_i)^T g(x_j); gamma starts at 0.

    f and g are 1x1 convolutions to C/8 channels, h to C/2, v back to C. Written as products of matrices rather than as
    PyTorch's fused attention, which has no second derivative; latent optimisation needs one.
    """

    def __init__(self, channels: int, *, normalise: bool = False) -> None:
        """
        Args:
            channels: C.
            normalise: spectral normalisation of f, g, h and v, as in the paper for both networks.
        """
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.f, self.g = _pointwise(channels, narrow, normalise), _pointwise(channels, narrow, normalise)
        self.h, self.v = _pointwise(channels, half, normalise), _pointwise(half, channels, normalise)
        self.gamma = nn.Parameter(torch.zeros(()))

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, HW, HW): at [n, j, i] how much position j looks at position i; rows add up to 1."""
        keys, queries = self.f(x).flatten(2), self.g(x).flatten(2)  # (N, C/8, HW)
        return (queries.transpose(1, 2) @ keys).softmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = self.h(x).flatten(2)  # (N, C/2, HW)
        gathered = (values @ self.weights(x).transpose(1, 2)).unflatten(2, x.shape[-2:])
        return self.gamma * self.v(gathered) + x


def _pointwise(before: int, after: int, normalise: bool) -> nn.Module:
    layer = nn.Conv2d(before, after, 1, bias=False)
    return spectral_norm(layer) if normalise else layer
