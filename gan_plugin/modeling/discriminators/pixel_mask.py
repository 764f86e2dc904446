"""The thesis' discriminator: a stack of strided convolutions over one cropped mask."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from gan_plugin.errors import UserError

from .build import DISCRIMINATOR_REGISTRY
from .layers import common_arguments, conv_stack, features_of, initialise, logits_of, normalise_spectrally


@DISCRIMINATOR_REGISTRY.register()
class PixelMaskDiscriminator(nn.Module):
    """Is this mask drawn by an annotator or predicted? (thesis 5.5, A.4, A.5)

    Each of `channels` is a 4x4 convolution of stride 2 without bias, normalised from the second on, and LeakyReLU 0.2;
    a 2x2 convolution over the remaining 2x2 grid gives the logit. The defaults have 11,412,480 parameters.
    """

    sees = "masks"

    @configurable
    def __init__(
        self,
        *,
        input_size: int = 128,
        channels: Sequence[int] = (64, 128, 128, 256, 512, 1024),
        norm: str = "BN",
        in_channels: int = 1,
        spectral: bool = False,
        judges: str = "logits",
    ) -> None:
        """
        Args:
            input_size: side S of the square input in pixels; 2 ** (len(channels) + 1).
            channels: output channels of the strided convolutions.
            norm: "BN", "GN", "SyncBN" or "" for none.
            in_channels: channels of the input; a mask has one.
            spectral: whether to normalise the weights spectrally.
            judges: "logits", or "features" of the input and of every layer.

        Raises:
            UserError: `channels` is empty, or `input_size` does not fit their number.
        """
        super().__init__()
        needed = 2 ** (len(channels) + 1)
        if not channels:
            raise UserError("MODEL.GAN.MASK.CHANNELS is empty; give one or more numbers.")
        if input_size != needed:
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size}, but {len(channels)} CHANNELS need {needed}: each one "
                "halves the side and 2 pixels must be left."
            )
        self.blocks = conv_stack(in_channels, channels, norm)
        self.verdict = nn.Conv2d(channels[-1], 1, kernel_size=2, bias=False)
        self.judges = judges
        initialise(self, partial(nn.init.normal_, mean=0.0, std=0.02))
        if spectral:
            normalise_spectrally(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        return common_arguments(cfg, player, input_shape)

    def forward(self, masks: torch.Tensor) -> Any:
        """(R, in_channels, S, S) with values in [-1, 1] -> (R,) logits, positive for "annotator"; or the features."""
        if self.judges == "features":
            return features_of(masks, [*self.blocks, self.verdict])
        return logits_of(masks, [*self.blocks], self.verdict)
