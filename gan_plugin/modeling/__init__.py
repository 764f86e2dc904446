"""The model: a Mask R-CNN whose masks and boxes discriminators judge."""

from .adversary import Adversary, MaskAdversary
from .box_predictor import AdversarialFastRCNNOutputLayers
from .discriminators import DISCRIMINATOR_REGISTRY, PixelMaskDiscriminator
from .losses import OBJECTIVE_REGISTRY
from .mask_head import AdversarialMaskHead
from .meta_arch import AdversarialRCNN
from .point_rend import AdversarialPointRendMaskHead
from .roi_heads import AdversarialCascadeROIHeads, AdversarialROIHeads

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "OBJECTIVE_REGISTRY",
    "AdversarialCascadeROIHeads",
    "AdversarialFastRCNNOutputLayers",
    "AdversarialMaskHead",
    "AdversarialPointRendMaskHead",
    "AdversarialRCNN",
    "AdversarialROIHeads",
    "Adversary",
    "MaskAdversary",
    "PixelMaskDiscriminator",
]
