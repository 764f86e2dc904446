"""Binarisation that lets gradients through."""

import torch


def straight_through_binarize(probabilities: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """Zeros and ones forward, the identity's gradient backward (Bengio et al. 2013, arXiv 1308.3432).

    Args:
        probabilities: any shape, values in [0, 1].
        threshold: values above it become 1.

    Returns:
        A tensor of the same shape and dtype with values 0 and 1, whose gradient is handed to `probabilities` unchanged.
    """
    hard = (probabilities > threshold).to(probabilities.dtype)
    # The bracket is exactly zero, so rounding cannot disturb the zeros and ones.
    return hard + (probabilities - probabilities.detach())
