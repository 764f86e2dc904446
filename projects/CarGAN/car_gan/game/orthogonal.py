"""Orthogonal regularisation: what keeps the filters of a layer apart."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized


def orthogonal_penalty(weight: torch.Tensor, form: str) -> torch.Tensor:
    """The distance of the filters of a layer to orthogonal ones, a scalar.

    Args:
        weight: (filters, ...); each filter is a column of W.
        form: "full", |W^T W - I|^2 (Brock et al. 2016, arXiv 1609.07093), or "off_diagonal", |W^T W o (1 - I)|^2, which
            leaves the filters' norms free (BigGAN; Brock et al. 2018, arXiv 1809.11096, equation 3). Frobenius norms.
    """
    rows = weight.flatten(1)
    gram = rows @ rows.t()
    identity = torch.eye(len(gram), device=gram.device)
    return ((gram - identity) if form == "full" else gram * (1 - identity)).square().sum()


def orthogonal_loss(network: nn.Module, form: str) -> torch.Tensor:
    """The sum of `orthogonal_penalty` over all convolutions and linear layers, in single precision."""
    weights = [_filters(m) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    with torch.autocast(weights[0].device.type, enabled=False):
        return torch.stack([orthogonal_penalty(weight.float(), form) for weight in weights]).sum()


def _filters(layer: Any) -> torch.Tensor:
    # a spectrally normalised weight is the same up to a factor; a transposed convolution has its inputs first
    weight = layer.parametrizations.weight.original if is_parametrized(layer) else layer.weight
    return weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
