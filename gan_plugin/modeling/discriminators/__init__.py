"""Networks that tell the truth from a prediction."""

from .build import DISCRIMINATOR_REGISTRY, build_discriminator
from .pixel_mask import PixelMaskDiscriminator

__all__ = ["DISCRIMINATOR_REGISTRY", "PixelMaskDiscriminator", "build_discriminator"]
