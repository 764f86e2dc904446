"""How weights start."""

from collections.abc import Callable

import torch
from torch import nn

from gan_plugin.errors import UserError

from .latent_norm import LatentNorm


def _normal(weight: torch.Tensor) -> None:
    # DCGAN's (Radford et al. 2016, arXiv 1511.06434, section 4)
    nn.init.normal_(weight, 0.0, 0.02)


INITIALISERS: dict[str, Callable[[torch.Tensor], object]] = {
    "normal": _normal,
    # Saxe et al. 2013, arXiv 1312.6120
    "orthogonal": nn.init.orthogonal_,
    # Glorot and Bengio 2010, uniform
    "xavier": nn.init.xavier_uniform_,
}


def initialise(network: nn.Module, name: str, key: str = "MODEL.INIT") -> None:
    """Set convolutions and linear layers by `name`, biases to 0; with "normal" also normalisation gains to N(1, 0.02).

    Raises:
        UserError: `name`, which config key `key` holds, is unknown.
    """
    if name not in INITIALISERS:
        raise UserError(f"{key} is {name!r}, which is unknown; set it to one of {', '.join(INITIALISERS)}.")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            with torch.no_grad():
                # a spectrally normalised weight is set through its parametrisation
                weight = module.weight.detach().clone()
                INITIALISERS[name](weight)
                module.weight = weight if nn.utils.parametrize.is_parametrized(module) else nn.Parameter(weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and name == "normal":
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, LatentNorm):
            module.reset_steer()
