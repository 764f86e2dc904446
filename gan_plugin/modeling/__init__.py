"""The model: any that draws masks, which discriminators judge, and its boxes."""

from .adversary import Adversary, MaskAdversary
from .discriminators import DISCRIMINATOR_REGISTRY, PixelMaskDiscriminator
from .lazy_node import AdversarialCascadeROIHeads, AdversarialMaskHead, AdversarialROIHeads
from .meta_arch import AdversarialModel, AdversarialRCNN, install_switch
from .objectives import OBJECTIVE_REGISTRY
from .presenters import PRESENTER_REGISTRY
from .roi_source import AdversarialPointRendMaskHead, RoISource
from .samples import MaskSampler
from .sources import SAMPLE_SOURCE_REGISTRY, QuerySource, SampleSource
from .timm_backbone import TimmBackbone

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "OBJECTIVE_REGISTRY",
    "PRESENTER_REGISTRY",
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
