"""Networks that tell the truth from a prediction."""

from .feature import BoxFeatureDiscriminator, MaskedFeatureDiscriminator
from .layers import DISCRIMINATOR_REGISTRY, build_discriminator, discriminator_class, presenter_class
from .mask import MaskedImageDiscriminator, PatchMaskDiscriminator, PixelMaskDiscriminator, ProjectionMaskDiscriminator

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "BoxFeatureDiscriminator",
    "MaskedFeatureDiscriminator",
    "MaskedImageDiscriminator",
    "PatchMaskDiscriminator",
    "PixelMaskDiscriminator",
    "ProjectionMaskDiscriminator",
    "build_discriminator",
    "discriminator_class",
    "presenter_class",
]
