"""A verdict for every patch of a mask, which tells the generator where it was found out."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from gan_plugin.errors import UserError

from .build import DISCRIMINATOR_REGISTRY
from .layers import common_arguments, conv_stack, initialise, normalise_spectrally, require_logits


@DISCRIMINATOR_REGISTRY.register()
class PatchMaskDiscriminator(nn.Module):
    """A map of verdicts, one for each overlapping patch (Isola et al. 2017, arXiv 1611.07004, section 3.2.2).

    Each of `channels` is a 4x4 convolution of stride 2, normalised from the second on; a 3x3 convolution gives the map.
    With n of them a patch is 5 * 2 ** n - 2 pixels wide; with none, verdicts are per pixel and see 3x3.
    """

    sees = "masks"

    @configurable
    def __init__(
        self,
        *,
        input_size: int = 128,
        channels: Sequence[int] = (64, 128),
        norm: str = "BN",
        in_channels: int = 1,
        spectral: bool = False,
        judges: str = "logits",
    ) -> None:
        """
        Args:
            input_size, channels, norm, in_channels, spectral: as for PixelMaskDiscriminator.
            judges: "logits".

        Raises:
            UserError: the input is too small for so many channels, or the objective wants features.
        """
        super().__init__()
        require_logits(judges, type(self))
        if input_size < 2 ** len(channels):
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size}, but {len(channels)} CHANNELS need at least "
                f"{2 ** len(channels)}: each one halves the side."
            )
        self.blocks = nn.Sequential(*conv_stack(in_channels, channels, norm))
        self.verdict = nn.Conv2d([in_channels, *channels][-1], 1, kernel_size=3, padding=1, bias=False)
        initialise(self, partial(nn.init.normal_, mean=0.0, std=0.02))
        if spectral:
            normalise_spectrally(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        return common_arguments(cfg, player, input_shape)

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """(R, in_channels, S, S) with values in [-1, 1] -> (R, S / 2 ** n, S / 2 ** n) logits."""
        return self.verdict(self.blocks(masks))[:, 0]
