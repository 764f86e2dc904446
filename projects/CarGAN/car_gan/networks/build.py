"""Networks from a config."""

from dataclasses import dataclass
from typing import Any

from fvcore.common.config import CfgNode
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.config import registered
from gan_plugin.layers.layout import to_channels_last

from .dcgan import DCGANDiscriminator, DCGANGenerator
from .initialise import initialise
from .resnet import ResNetDiscriminator, ResNetGenerator

GENERATOR_REGISTRY: Registry = Registry("CAR_GENERATOR")
DISCRIMINATOR_REGISTRY: Registry = Registry("CAR_DISCRIMINATOR")


@dataclass(frozen=True)
class Networks:
    """The players of a game; `encoder` is None without LOGAN-B."""

    generator: nn.Module
    discriminator: nn.Module
    encoder: nn.Module | None


def build_networks(cfg: CfgNode) -> Networks:
    """The networks that `cfg.MODEL` describes, initialised from torch's global random state, on the CPU.

    Raises:
        UserError: a name is unknown, or the size and the channels do not fit.
    """
    generator = build_generator(cfg)
    discriminator = registered("MODEL.DISCRIMINATOR.NAME", cfg.MODEL.DISCRIMINATOR.NAME, DISCRIMINATOR_REGISTRY)(cfg)
    encoder = None
    if cfg.MODEL.ENCODER.ENABLED:
        sizes: dict[str, Any] = {"width": cfg.MODEL.ENCODER.WIDTH, "outputs": cfg.MODEL.LATENT.SIZE}
        encoder = DCGANDiscriminator(**_images(cfg), **sizes)
    for network in (generator, discriminator, encoder):
        if network is not None:
            initialise(network, cfg.MODEL.INIT)
            # transposed convolutions and their gradients are the faster for it, on a CPU and on tensor cores
            to_channels_last(network)
    return Networks(generator, discriminator, encoder)


def build_generator(cfg: CfgNode) -> nn.Module:
    """The generator alone, not yet initialised; errors as above."""
    return registered("MODEL.GENERATOR.NAME", cfg.MODEL.GENERATOR.NAME, GENERATOR_REGISTRY)(cfg)


def _images(cfg: CfgNode) -> dict[str, Any]:
    return {"size": cfg.INPUT.SIZE, "image_channels": cfg.INPUT.CHANNELS}


def _of_generator(cfg: CfgNode) -> dict[str, Any]:
    node = cfg.MODEL.GENERATOR
    return {
        **_images(cfg),
        "latent_size": cfg.MODEL.LATENT.SIZE + len(cfg.MODEL.LABEL.NAMES),
        "width": node.WIDTH,
        "slope": node.SLOPE,
        "attention": node.ATTENTION,
        "normalise_attention": cfg.MODEL.ATTENTION_SPECTRAL_NORM,
        "normalise": node.SPECTRAL_NORM,
        "skip_z": node.SKIP_Z,
    }


def _of_discriminator(cfg: CfgNode) -> dict[str, Any]:
    node = cfg.MODEL.DISCRIMINATOR
    return {
        **_images(cfg),
        "width": node.WIDTH,
        "outputs": 1 + len(cfg.MODEL.LABEL.NAMES),
        "attention": node.ATTENTION,
        "normalise_attention": cfg.MODEL.ATTENTION_SPECTRAL_NORM,
        "normalise": cfg.MODEL.GAN.REG.SPECTRAL_NORM,
    }


def _dcgan_generator(cfg: CfgNode) -> nn.Module:
    node = cfg.MODEL.GENERATOR
    return DCGANGenerator(**_of_generator(cfg), channels=node.CHANNELS, first_side=node.FIRST_SIDE, last=node.LAST)


def _resnet_generator(cfg: CfgNode) -> nn.Module:
    node = cfg.MODEL.GENERATOR
    return ResNetGenerator(**_of_generator(cfg), blocks=node.BLOCKS, upsample=node.UPSAMPLE)


def _dcgan_discriminator(cfg: CfgNode) -> nn.Module:
    node = cfg.MODEL.DISCRIMINATOR
    return DCGANDiscriminator(**_of_discriminator(cfg), channels=node.CHANNELS, norm=node.NORM)


def _resnet_discriminator(cfg: CfgNode) -> nn.Module:
    return ResNetDiscriminator(**_of_discriminator(cfg), blocks=cfg.MODEL.DISCRIMINATOR.BLOCKS)


# the registered objects take a config, so that a project's own networks can read keys of their own
GENERATOR_REGISTRY._do_register("DCGANGenerator", _dcgan_generator)
GENERATOR_REGISTRY._do_register("ResNetGenerator", _resnet_generator)
DISCRIMINATOR_REGISTRY._do_register("DCGANDiscriminator", _dcgan_discriminator)
DISCRIMINATOR_REGISTRY._do_register("ResNetDiscriminator", _resnet_discriminator)
