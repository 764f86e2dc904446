"""The registry of discriminators, and what all of them are made of."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.utils import comm
from fvcore.common.registry import Registry
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_plugin.config import check_choice, check_name, registered
from gan_plugin.errors import UserError
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.presenters import PRESENTER_REGISTRY, Presenter

DISCRIMINATOR_REGISTRY: Registry = Registry("DISCRIMINATOR")
DISCRIMINATOR_REGISTRY.__doc__ = """
Discriminators: modules that take a batch of samples, (R, C, S, S), and return logits, (R,) or (R, H, W). Each is built
as `cls(cfg, player, input_shape)`, where `cfg.MODEL.GAN[player]` holds its keys and player is "MASK" or "BOX"; register
your own with `@DISCRIMINATOR_REGISTRY.register()` and name it in `MODEL.GAN.MASK.DISCRIMINATOR`. Class attributes:

    sees: the name of a presenter, "PixelMasks" (the default for masks), "MaskedImages", "MaskedFeatures", "BoxFeatures"
        or one of `PRESENTER_REGISTRY` that you have registered.
    conditional: True if it is called with the (R,) classes as well.
"""

# of a class without `sees`
_USUALLY = {"MASK": "PixelMasks", "BOX": "BoxFeatures"}
# what the presenters were called in the attribute `sees` before there was a registry of them
_FORMERLY = {
    "masks": "PixelMasks",
    "masked_images": "MaskedImages",
    "masked_features": "MaskedFeatures",
    "box_features": "BoxFeatures",
}
# Wu and He 2018, arXiv 1803.08494, table 3: 32 groups or 16 channels a group do best, 1 channel a group is worst. A
# group of few channels over a grid of 1x1 would forget all but the signs.
_MOST_GROUPS = 32
_LEAST_CHANNELS = 8


def discriminator_class(cfg: CfgNode, player: str) -> type[nn.Module]:
    """The class that `cfg.MODEL.GAN[player].DISCRIMINATOR` names.

    Raises:
        UserError: it is unknown, or made for the other player; the sentence lists the ones to choose from.
    """
    key, name = f"MODEL.GAN.{player}.DISCRIMINATOR", cfg.MODEL.GAN[player].DISCRIMINATOR
    fitting = sorted(entry for entry, cls in DISCRIMINATOR_REGISTRY if presenter_class(cls, player).player == player)
    if name not in DISCRIMINATOR_REGISTRY:
        check_name(key, name, fitting)
    if name not in fitting:
        raise UserError(f"{key} is {name}, which judges something else; set it to one of {', '.join(fitting)}.")
    return DISCRIMINATOR_REGISTRY.get(name)


def presenter_class(cls: type, player: str) -> type[Presenter]:
    """The presenter of what a discriminator of `player` wants to see.

    Raises:
        UserError: its attribute `sees` names none.
    """
    name = getattr(cls, "sees", _USUALLY[player])
    name = _FORMERLY.get(name, name)
    return registered(f"{cls.__name__}.sees", name, PRESENTER_REGISTRY)


def build_discriminator(cfg: CfgNode, player: str, input_shape: ShapeSpec) -> nn.Module:
    """The discriminator of `player` ("MASK" or "BOX") for inputs of `input_shape`.

    Raises:
        UserError: as `discriminator_class`, or a key of `cfg.MODEL.GAN[player]` has a value that cannot work.
    """
    return discriminator_class(cfg, player)(cfg, player, input_shape)


class LoneBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that normalises by its running statistics where a channel has one value only.

    That happens in a discriminator's last layers when an iteration has a single foreground RoI; PyTorch refuses it.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def conv_block(in_channels: int, out_channels: int, kernel: int, stride: int, padding: int, norm: str) -> nn.Sequential:
    """Convolution without bias, normalisation ("" for none), LeakyReLU 0.2."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)]
    if norm:
        layers.append(build_norm(norm, out_channels))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2, inplace=True))


def conv_stack(
    in_channels: int, channels: Sequence[int], norm: str, kernel: int = 4, first_padding: int = 1
) -> nn.ModuleList:
    """A `conv_block` of stride 2 and padding 1 for each of `channels`, the first of them without normalisation."""
    return nn.ModuleList(
        conv_block(before, width, kernel, 2, 1 if index else first_padding, norm if index else "")
        for index, (before, width) in enumerate(zip([in_channels, *channels], channels, strict=False))
    )


def build_norm(name: str, channels: int) -> nn.Module:
    """The normalisation of NORM: "BN", "GN" (groups of at least 8 channels, at most 32) or "SyncBN"."""
    if name == "BN" or (name == "SyncBN" and comm.get_world_size() == 1):
        return LoneBatchNorm2d(channels)
    if name == "GN":
        most = min(_MOST_GROUPS, max(1, channels // _LEAST_CHANNELS))
        groups = next(count for count in range(most, 0, -1) if channels % count == 0)
        return nn.GroupNorm(groups, channels)
    # The only one of Detectron2's that knows empty batches and works without a GPU.
    return get_norm("naiveSyncBN_N", channels)


def initialise(module: nn.Module, init_conv: Callable[[torch.Tensor], Any]) -> None:
    """Convolutions by `init_conv`; normalisation weights N(1, 0.02), biases 0 (thesis A.5; Le et al. 2020)."""
    for layer in module.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(layer, nn.Conv2d):
            init_conv(layer.weight)
        elif isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter):
            nn.init.normal_(weight, 1.0, 0.02)
            nn.init.zeros_(bias)


def normalise_spectrally(module: nn.Module) -> None:
    """Divide the weight of each convolution, embedding and linear layer by its largest singular value
    (Miyato et al. 2018, arXiv 1802.05957), with PyTorch's own parametrization."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
            spectral_norm(layer)


def layer_weights(layers: int) -> tuple[float, ...]:
    """Weights of the input and of so many layers in a feature distance: 1, 1, 2, ..., 2, 4 (Le et al. 2020's code)."""
    return (1.0, 1.0, *(2.0,) * (layers - 2), 4.0)[: layers + 1]


def features_of(
    inputs: torch.Tensor, blocks: Sequence[Callable[[torch.Tensor], torch.Tensor]]
) -> tuple[torch.Tensor, ...]:
    """The input and the outputs of `blocks` run one after another, each (R, K), times their `layer_weights`."""
    outputs = [inputs]
    for block in blocks:
        outputs.append(block(outputs[-1]))
    weights = layer_weights(len(blocks))
    flat = [output.flatten(1) for output in outputs]
    return tuple(each if weight == 1 else each * weight for each, weight in zip(flat, weights, strict=True))


class Discriminator(nn.Module):
    """What our discriminators share: strided `blocks`, a `verdict` on what they leave, and where their arguments are.

    A constructor makes the two, `verdict` None where features alone are asked for, and calls `begin`.
    """

    blocks: nn.ModuleList
    verdict: Any
    judges: str

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        """Constructor arguments, from the keys of `cfg.MODEL.GAN[player]`."""
        node = cfg.MODEL.GAN[player]
        return {
            "in_channels": input_shape.channels,
            "input_size": input_shape.height,
            "channels": tuple(node.CHANNELS),
            "norm": check_choice(f"MODEL.GAN.{player}.NORM", node.NORM),
            "spectral": cfg.MODEL.GAN.REG.SPECTRAL_NORM,
            "judges": build_objective(node.OBJECTIVE, f"MODEL.GAN.{player}.OBJECTIVE").judges,
        }

    def begin(self, judges: str, spectral: bool, *, he: bool = False) -> None:
        """Draw the first weights, of N(0, 0.02) or He's for LeakyReLU, and normalise them spectrally if asked to."""
        self.judges = judges
        of_he = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
        initialise(self, of_he if he else partial(nn.init.normal_, mean=0.0, std=0.02))
        if he and self.verdict is not None:
            # One output has a fan-out of 1, with which He's deviation saturates every verdict from the start.
            nn.init.normal_(self.verdict.weight, 0.0, 0.02)
        if spectral:
            normalise_spectrally(self)

    def forward(self, inputs: torch.Tensor) -> Any:
        """(R, C, S, S) -> (R,) logits, positive for "annotator"; or weighted features of the input and every layer,
        (R, K_i) each."""
        if self.judges == "features":
            return features_of(inputs, self._layers() if self.verdict is None else [*self._layers(), self.verdict])
        for layer in self._layers():
            inputs = layer(inputs)
        return self.verdict(inputs).flatten()

    def _layers(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        return [*self.blocks]

    @classmethod
    def require_logits(cls, judges: str) -> None:
        """Raise a UserError if the objective asks for features, of a discriminator that gives none."""
        if judges != "logits":
            raise UserError(
                f"MODEL.GAN.MASK.OBJECTIVE asks for the features of every layer, which {cls.__name__} does not give; "
                "set MODEL.GAN.MASK.DISCRIMINATOR to MaskedFeatureDiscriminator or PixelMaskDiscriminator."
            )
