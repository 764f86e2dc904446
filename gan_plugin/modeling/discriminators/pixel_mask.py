"""The thesis' discriminator: a stack of strided convolutions over one cropped mask."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import get_norm
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .build import DISCRIMINATOR_REGISTRY

_GROUPS = 32  # of Detectron2's "GN"


@DISCRIMINATOR_REGISTRY.register()
class PixelMaskDiscriminator(nn.Module):
    """Is this mask drawn by an annotator or predicted? (thesis 5.5, A.4, A.5)

    Each of `channels` is a 4x4 convolution of stride 2 without bias, normalised from the second on, and LeakyReLU 0.2;
    a 2x2 convolution over the remaining 2x2 grid gives the logit. The defaults have 11,412,480 parameters.
    """

    @configurable
    def __init__(
        self,
        *,
        input_size: int = 128,
        channels: Sequence[int] = (64, 128, 128, 256, 512, 1024),
        norm: str = "BN",
        in_channels: int = 1,
    ) -> None:
        """
        Args:
            input_size: side S of the square input in pixels; 2 ** (len(channels) + 1).
            channels: output channels of the strided convolutions.
            norm: name of a normalisation that Detectron2's `get_norm` knows, or "" for none.
            in_channels: channels of the input; a mask has one.

        Raises:
            UserError: `channels` is empty or does not suit `norm`, or `input_size` does not fit their number.
        """
        super().__init__()
        if not channels or (norm == "GN" and any(width % _GROUPS for width in channels[1:])):
            raise UserError(
                f"MODEL.GAN.MASK.CHANNELS is {tuple(channels)}; give at least one, and with NORM GN multiples of "
                f"{_GROUPS} from the second on."
            )
        fitting = 2 ** (len(channels) + 1)
        if input_size != fitting:
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size}, but {len(channels)} CHANNELS need {fitting}: "
                "each one halves the side and 2 pixels must be left."
            )
        layers: list[nn.Module] = []
        for index, width in enumerate(channels):
            before = channels[index - 1] if index else in_channels
            layers.append(nn.Conv2d(before, width, kernel_size=4, stride=2, padding=1, bias=False))
            if index and norm:
                layers.append(get_norm(norm, width))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(channels[-1], 1, kernel_size=2, bias=False))
        self.layers = nn.Sequential(*layers)
        self.apply(_init_weights)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        mask = cfg.MODEL.GAN.MASK
        norm = check_choice("MODEL.GAN.MASK.NORM", mask.NORM)
        return {"input_size": mask.INPUT_SIZE, "channels": tuple(mask.CHANNELS), "norm": norm}

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """(R, in_channels, S, S) with values in [-1, 1] -> (R,) logits; positive means "annotator"."""
        return self.layers(masks).flatten()


def _init_weights(module: nn.Module) -> None:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter):
        nn.init.normal_(weight, 1.0, 0.02)
        nn.init.zeros_(bias)
