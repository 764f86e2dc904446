"""Discriminators of masks: the thesis' own, and those that know the class, judge every patch or see the picture."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError

from .layers import DISCRIMINATOR_REGISTRY, Discriminator, conv_stack, normalise_spectrally


@DISCRIMINATOR_REGISTRY.register()
class PixelMaskDiscriminator(Discriminator):
    """Is this mask drawn by an annotator or predicted? (thesis 5.5, A.4, A.5)

    Each of `channels` is a 4x4 convolution of stride 2 without bias, normalised from the second on, and LeakyReLU 0.2;
    a 2x2 convolution over the remaining 2x2 grid gives the logit. The defaults have 11,412,480 parameters.
    """

    sees = "PixelMasks"

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
        needed = 2 ** (len(check_choice("MODEL.GAN.MASK.CHANNELS", channels)) + 1)
        if input_size != needed:
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size}, but {len(channels)} CHANNELS need {needed}: each one "
                "halves the side and 2 pixels must be left."
            )
        self.blocks = conv_stack(in_channels, channels, norm)
        self.verdict = nn.Conv2d(channels[-1], 1, kernel_size=2, bias=False)
        self.begin(judges, spectral)


@DISCRIMINATOR_REGISTRY.register()
class ProjectionMaskDiscriminator(PixelMaskDiscriminator):
    """The thesis' network plus the inner product of its features with an embedding of the class.

    Miyato and Koyama 2018, arXiv 1802.05637, eq 3: logit = psi(h) + <e(class), sum of h over its positions>.
    """

    conditional = True

    @configurable
    def __init__(self, *, num_classes: int, spectral: bool = False, judges: str = "logits", **kwargs: Any) -> None:
        """
        Args:
            num_classes: classes of the data set, without background.
            spectral, judges, kwargs: as for PixelMaskDiscriminator; judges is "logits".

        Raises:
            UserError: as PixelMaskDiscriminator, or the objective wants features.
        """
        self.require_logits(judges)
        super().__init__(judges=judges, **kwargs)
        self.embedding = nn.Embedding(num_classes, self.verdict.in_channels)
        # The class begins without a say, and N(0, 0.02) is the rest of the network's scale.
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)
        if spectral:
            normalise_spectrally(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        return super().from_config(cfg, player, input_shape) | {"num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES}

    def forward(self, masks: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(R, in_channels, S, S) masks in [-1, 1] and (R,) classes -> (R,) logits."""
        for block in self.blocks:
            masks = block(masks)
        projection = (self.embedding(classes) * masks.sum(dim=(2, 3))).sum(dim=1)
        return self.verdict(masks).flatten() + projection


@DISCRIMINATOR_REGISTRY.register()
class PatchMaskDiscriminator(Discriminator):
    """A map of verdicts, one for each overlapping patch (Isola et al. 2017, arXiv 1611.07004, section 3.2.2).

    Each of `channels` is a 4x4 convolution of stride 2, normalised from the second on; a 3x3 convolution gives the map.
    With n of them a patch is 5 * 2 ** n - 2 pixels wide; with none, verdicts are per pixel and see 3x3.
    """

    sees = "PixelMasks"

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
        self.require_logits(judges)
        if input_size < 2 ** len(channels):
            raise UserError(
                f"MODEL.GAN.MASK.INPUT_SIZE is {input_size}, but {len(channels)} CHANNELS need at least "
                f"{2 ** len(channels)}: each one halves the side."
            )
        self.blocks = conv_stack(in_channels, channels, norm)
        self.verdict = nn.Conv2d([in_channels, *channels][-1], 1, kernel_size=3, padding=1, bias=False)
        self.begin(judges, spectral)

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """(R, in_channels, S, S) with values in [-1, 1] -> (R, S / 2 ** n, S / 2 ** n) logits."""
        for block in self.blocks:
            masks = block(masks)
        return self.verdict(masks)[:, 0]


@DISCRIMINATOR_REGISTRY.register()
class MaskedImageDiscriminator(Discriminator):
    """One verdict on a mask and the RGB crop times that mask, of any side.

    Each of `channels` is a 4x4 convolution of stride 2, normalised from the second on and followed by LeakyReLU 0.2;
    the last one's mean over the picture is weighed to a logit.
    """

    sees = "MaskedImages"

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
            channels, norm, spectral, judges: as for PixelMaskDiscriminator.

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
        self.begin(judges, spectral)

    def forward(self, inputs: torch.Tensor) -> Any:
        """(R, in_channels, S, S) -> (R,) logits; or weighted features of the input and every layer, (R, K_i) each."""
        if self.verdict is None:
            return super().forward(inputs)
        for block in self.blocks:
            inputs = block(inputs)
        return self.verdict(inputs.mean(dim=(2, 3), keepdim=True)).flatten()
