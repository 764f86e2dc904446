"""Networks that tell the truth from a prediction."""

from .box_feature import BoxFeatureDiscriminator
from .build import DISCRIMINATOR_REGISTRY, build_discriminator, discriminator_class, sight_of
from .feature_mask import MaskedFeatureDiscriminator
from .masked_image import MaskedImageDiscriminator
from .patch_mask import PatchMaskDiscriminator
from .pixel_mask import PixelMaskDiscriminator
from .projection_mask import ProjectionMaskDiscriminator

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
    "sight_of",
]
