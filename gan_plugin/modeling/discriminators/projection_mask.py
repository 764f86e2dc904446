"""A discriminator that knows which class the mask is meant to be."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import nn

from .build import DISCRIMINATOR_REGISTRY
from .layers import common_arguments, normalise_spectrally, require_logits
from .pixel_mask import PixelMaskDiscriminator


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
        require_logits(judges, type(self))
        super().__init__(judges=judges, **kwargs)
        self.embedding = nn.Embedding(num_classes, self.verdict.in_channels)
        # The class begins without a say, and N(0, 0.02) is the rest of the network's scale.
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)
        if spectral:
            normalise_spectrally(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, player: str, input_shape: ShapeSpec) -> dict[str, Any]:
        return common_arguments(cfg, player, input_shape) | {"num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES}

    def forward(self, masks: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(R, in_channels, S, S) masks in [-1, 1] and (R,) classes -> (R,) logits."""
        for block in self.blocks:
            masks = block(masks)
        projection = (self.embedding(classes) * masks.sum(dim=(2, 3))).sum(dim=1)
        return self.verdict(masks).flatten() + projection
