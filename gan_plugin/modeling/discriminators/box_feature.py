"""The paper's box discriminator: does this box cut out an object as the annotator would?"""

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
class BoxFeatureDiscriminator(nn.Module):
    """Five convolutions over the RoI features of a box (Le et al. 2020, arXiv 2010.13757, figure 2).

    The paper leaves kernels and strides open ("the correct stride and kernel size"): here each of `channels` is a 3x3
    convolution of stride 2 and padding 1, which halves any side, normalised from the second on, with LeakyReLU 0.2; the
    fifth covers what is left and gives the logit.
    """

    sees = "box_features"

    @configurable
    def __init__(
        self,
        *,
        in_channels: int = 256,
        input_size: int = 7,
        channels: Sequence[int] = (64, 128, 256, 512),
        norm: str = "BN",
        spectral: bool = False,
        judges: str = "logits",
    ) -> None:
        """
        Args:
            in_channels: channels of the features.
            input_size: side S of the pooled features in cells.
            channels: output channels of the convolutions before the last.
            norm: "BN", "GN", "SyncBN" or "" for none.
            spectral: whether to normalise the weights spectrally.
            judges: "logits", or "features" of the input and of every layer.

        Raises:
            UserError: no channels.
        """
        super().__init__()
        if not channels:
            raise UserError("MODEL.GAN.BOX.CHANNELS is empty; give at least one number.")
        self.blocks = conv_stack(in_channels, channels, norm, kernel=3)
        left = -(-input_size // 2 ** len(channels))
        self.verdict = nn.Conv2d(channels[-1], 1, kernel_size=left, bias=False)
        self.judges = judges
        initialise(self, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))
        # One output has a fan-out of 1, with which He's deviation saturates every verdict from the start.
        nn.init.normal_(self.verdict.weight, 0.0, 0.02)
        if spectral:
            normalise_spectrally(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        return common_arguments(cfg, player, input_shape)

    def forward(self, features: torch.Tensor) -> Any:
        """(R, in_channels, S, S) -> (R,) logits, positive for "annotator"; or the features of every layer."""
        if self.judges == "features":
            return features_of(features, [*self.blocks, self.verdict])
        return logits_of(features, [*self.blocks], self.verdict)
