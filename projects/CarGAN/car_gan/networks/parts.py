"""What both kinds of networks are made of: self-attention, steered normalisation, sizes, and how weights start."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_plugin.errors import UserError
from gan_plugin.rules import check_name

_MOST = 8


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


class LatentNorm(nn.Module):
    """BatchNorm, whose gain and bias a linear map of the latent adds to if there is one.

    BigGAN's way to feed z into deep layers (Brock et al. 2018, arXiv 1809.11096, appendix B), without its classes. The
    maps start at zero, so that a network begins as the plain one.
    """

    def __init__(self, channels: int, latent_size: int = 0) -> None:
        """
        Args:
            channels: of the feature map.
            latent_size: of z; 0 for plain batch normalisation.
        """
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.steer = nn.Linear(latent_size, 2 * channels, bias=False) if latent_size else None
        self.reset_steer()

    def reset_steer(self) -> None:
        """Make it the plain normalisation again."""
        if self.steer is not None:
            nn.init.zeros_(self.steer.weight)

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) and (N, latent_size) -> (N, C, H, W)."""
        x = self.norm(x)
        if self.steer is None:
            return x
        gain, bias = self.steer(z)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + gain) + bias


def check_size(size: int, least: int) -> None:
    """Raise a UserError unless `size` is a power of two, `least` or more."""
    if size < least or size & (size - 1):
        raise UserError(f"INPUT.SIZE is {size}; set it to a power of two, {least} or more, such as 64.")


def rising(width: int, count: int) -> tuple[int, ...]:
    """`count` widths: `width`, twice, four times, eight times as many, and no more from there."""
    return tuple(width * min(2**index, _MOST) for index in range(count))


def check_channels(key: str, channels: Sequence[int], count: int, size: int) -> None:
    """Raise a UserError that names `key` unless there are `count` channels for images of `size` pixels."""
    if len(channels) != count:
        raise UserError(
            f"{key} has {len(channels)} entries, but images of {size} pixels (INPUT.SIZE) need {count}; change one of "
            "them, or leave CHANNELS empty."
        )


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
    check_name(key, name, INITIALISERS)
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
