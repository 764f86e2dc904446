"""The model: any that draws masks, which discriminators judge, and its boxes."""

from .adversary import Adversary, MaskAdversary
from .components import AdversarialCascadeROIHeads, AdversarialMaskHead, AdversarialROIHeads
from .discriminators import DISCRIMINATOR_REGISTRY, PixelMaskDiscriminator
from .losses import OBJECTIVE_REGISTRY
from .mask_sampling import MaskSampler
from .meta_arch import AdversarialModel, AdversarialRCNN, install_switch
from .point_rend import AdversarialPointRendMaskHead
from .query_source import QuerySource
from .roi_source import RoISource
from .sources import SAMPLE_SOURCE_REGISTRY, SampleSource
from .timm_backbone import TimmBackbone

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "OBJECTIVE_REGISTRY",
    "SAMPLE_SOURCE_REGISTRY",
    "AdversarialCascadeROIHeads",
    "AdversarialMaskHead",
    "AdversarialModel",
    "AdversarialPointRendMaskHead",
    "AdversarialRCNN",
    "AdversarialROIHeads",
    "Adversary",
    "MaskAdversary",
    "MaskSampler",
    "PixelMaskDiscriminator",
    "QuerySource",
    "RoISource",
    "SampleSource",
    "TimmBackbone",
    "install_switch",
]
