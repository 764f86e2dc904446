"""Generators and discriminators."""

from .patch_discriminator import PatchDiscriminator
from .registry import DISCRIMINATOR_REGISTRY, GENERATOR_REGISTRY, build_network
from .resnet_generator import LamaFourier, MultiDilated, Pix2PixHD
from .style_unet import StyleFFCUNet
from .unet import Pix2PixUNet
from .wavelet_discriminator import WaveletDiscriminator
from .wavelet_generator import WaveletGenerator

__all__ = [
    "DISCRIMINATOR_REGISTRY",
    "GENERATOR_REGISTRY",
    "LamaFourier",
    "MultiDilated",
    "PatchDiscriminator",
    "Pix2PixHD",
    "Pix2PixUNet",
    "StyleFFCUNet",
    "WaveletDiscriminator",
    "WaveletGenerator",
    "build_network",
]
