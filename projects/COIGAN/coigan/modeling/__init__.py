"""Generators and discriminators."""

from .build import DISCRIMINATOR_REGISTRY, GENERATOR_REGISTRY, build_network
from .patch_discriminator import PatchDiscriminator
from .resnet_generator import LamaFourier, MultiDilated, Pix2PixHD
from .unets import Pix2PixUNet, StyleFFCUNet
from .wavelet import WaveletDiscriminator, WaveletGenerator

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
