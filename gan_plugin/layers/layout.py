"""The order of a tensor's numbers in memory, which some kernels go through without a look at strides."""

import torch


def laid_out_like(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`values` (the shape of `like`) in the memory order of `like`; a copy only where they differ."""
    if values.stride() == like.stride():
        return values
    return torch.empty_like(like, dtype=values.dtype).copy_(values)
