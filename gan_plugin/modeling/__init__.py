"""The model: a Mask R-CNN whose masks a discriminator judges."""

from .adversary import MaskAdversary
from .discriminators import DISCRIMINATOR_REGISTRY, PixelMaskDiscriminator
from .losses import OBJECTIVE_REGISTRY
from .mask_head import AdversarialMaskHead
from .meta_arch import AdversarialRCNN

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "OBJECTIVE_REGISTRY",
    "AdversarialMaskHead",
    "AdversarialRCNN",
    "MaskAdversary",
    "PixelMaskDiscriminator",
]
