"""Generators, discriminators and the encoder, at any width and power-of-two size."""

from .build import DISCRIMINATOR_REGISTRY, GENERATOR_REGISTRY, Networks, build_networks
from .dcgan import DCGANDiscriminator, DCGANGenerator
from .resnet import ResNetDiscriminator, ResNetGenerator
from .self_attention import SelfAttention

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "GENERATOR_REGISTRY",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Networks",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SelfAttention",
    "build_networks",
]
