"""A discriminator that sees what a mask cuts out of the picture."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from gan_plugin.errors import UserError

from .build import DISCRIMINATOR_REGISTRY
from .layers import common_arguments, conv_stack, features_of, initialise, normalise_spectrally


@DISCRIMINATOR_REGISTRY.register()
class MaskedImageDiscriminator(nn.Module):
    """One verdict on a mask and the RGB crop times that mask, of any side.

    Each of `channels` is a 4x4 convolution of stride 2, normalised from the second on and followed by LeakyReLU 0.2;
    the last one's mean over the picture is weighed to a logit.
    """

    sees = "masked_images"

    @configurable
    def __init__(
        self,
        *,
        in_channels: int = 4,
        input_size: int = 56,
        channels: Sequence[int] = (32, 64, 128),
        norm: str = "GN",
        spectral: bool = False,
        judges: str = "logits",
    ) -> None:
        """
        Args:
            in_channels: 4, the mask and the crop.
            input_size: side S of the input in pixels, at least 2 ** len(channels).
            channels: output channels of the convolutions.
            norm: "BN", "GN", "SyncBN" or "" for none.
            spectral: whether to normalise the weights spectrally.
            judges: "logits", or "features" of the input and of every layer.

        Raises:
            UserError: no channels, or the input is too small for so many.
        """
        super().__init__()
        if not channels or input_size < 2 ** len(channels):
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size} and CHANNELS is {tuple(channels)}; "
                "MaskedImageDiscriminator needs one channel or more, and n of them a side of at least 2 ** n."
            )
        self.blocks = conv_stack(in_channels, channels, norm)
        self.verdict = nn.Conv2d(channels[-1], 1, kernel_size=1, bias=False) if judges == "logits" else None
        initialise(self, partial(nn.init.normal_, mean=0.0, std=0.02))
        if spectral:
            normalise_spectrally(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        return common_arguments(cfg, player, input_shape)

    def forward(self, inputs: torch.Tensor) -> Any:
        """(R, in_channels, S, S) -> (R,) logits; or weighted features of the input and every layer, (R, K_i) each."""
        if self.verdict is None:
            return features_of(inputs, list(self.blocks))
        for block in self.blocks:
            inputs = block(inputs)
        return self.verdict(inputs.mean(dim=(2, 3), keepdim=True)).flatten()
