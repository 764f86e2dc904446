"""The paper's two discriminators, which see features of the backbone: those a mask cuts out, and those in a box."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .layers import DISCRIMINATOR_REGISTRY, Discriminator, conv_block, conv_stack


@DISCRIMINATOR_REGISTRY.register()
class MaskedFeatureDiscriminator(Discriminator):
    """Five convolutions over mask x RoI features (Le et al. 2020, arXiv 2010.13757, figure 3, and their code).

    All of `channels` but the last are 4x4 convolutions of stride 2 and padding 1, the last is 2x2 without padding; each
    is normalised from the second on and followed by LeakyReLU 0.2. n of them need a side of 2 ** n; a smaller input,
    the paper's 28 for one, is padded with zeros, which is what a mask leaves outside of an object anyway.
    """

    sees = "MaskedFeatures"

    @configurable
    def __init__(
        self,
        *,
        in_channels: int = 256,
        input_size: int = 28,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        norm: str = "BN",
        spectral: bool = False,
        judges: str = "features",
    ) -> None:
        """
        Args:
            in_channels: channels of the RoI features.
            input_size: side S of the input in cells, at most 2 ** len(channels).
            channels: output channels of the convolutions.
            norm: "BN", "GN", "SyncBN" or "" for none.
            spectral: whether to normalise the weights spectrally.
            judges: "features" of the input and of every layer; or "logits", by one more 1x1 convolution.

        Raises:
            UserError: fewer than two channels, or a larger input.
        """
        super().__init__()
        side = 2 ** len(channels)
        if len(channels) < 2 or input_size > side:
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size} and CHANNELS is {tuple(channels)}; "
                "MaskedFeatureDiscriminator needs two or more channels, and n of them reach a side of 2 ** n."
            )
        missing = side - input_size
        # what it lacks on both sides the first convolution pads itself, which saves a copy of all the features
        self.blocks = conv_stack(in_channels, channels[:-1], norm, first_padding=1 + missing // 2)
        self.is_odd = missing % 2
        self.blocks.append(conv_block(channels[-2], channels[-1], 2, 1, 0, norm))
        self.verdict = nn.Conv2d(channels[-1], 1, kernel_size=1, bias=False) if judges == "logits" else None
        self.begin(judges, spectral, he=True)

    def _layers(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        first, *others = self.blocks
        # padded behind the input, whose added zeros would dilute the mean distance
        return [(lambda x: first(F.pad(x, (0, 1, 0, 1)))) if self.is_odd else first, *others]


@DISCRIMINATOR_REGISTRY.register()
class BoxFeatureDiscriminator(Discriminator):
    """Five convolutions over the RoI features of a box (Le et al. 2020, arXiv 2010.13757, figure 2).

    The paper leaves kernels and strides open ("the correct stride and kernel size"): here each of `channels` is a 3x3
    convolution of stride 2 and padding 1, which halves any side, normalised from the second on, with LeakyReLU 0.2; the
    fifth covers what is left and gives the logit.
    """

    sees = "BoxFeatures"

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
        self.blocks = conv_stack(in_channels, check_choice("MODEL.GAN.BOX.CHANNELS", channels), norm, kernel=3)
        left = -(-input_size // 2 ** len(channels))
        self.verdict = nn.Conv2d(channels[-1], 1, kernel_size=left, bias=False)
        self.begin(judges, spectral, he=True)
