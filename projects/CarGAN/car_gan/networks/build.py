"""Networks from a config."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.common.config import CfgNode
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.config import registered
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import read_safely
from gan_plugin.layers.layout import to_channels_last

from .dcgan import DCGANDiscriminator, DCGANGenerator
from .parts import initialise
from .resnet import ResNetDiscriminator, ResNetGenerator

GENERATOR_REGISTRY: Registry = Registry("CAR_GENERATOR")
DISCRIMINATOR_REGISTRY: Registry = Registry("CAR_DISCRIMINATOR")
# how the names of a player's weights begin in a checkpoint of the game
GENERATOR, DISCRIMINATOR = "generator.", "discriminator."


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


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The weights in a file that torch has saved: a checkpoint, an average, or a state dictionary alone.

    Raises:
        UserError: it cannot be read, or holds none.
    """
    content = read_safely(path)
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path} is not a checkpoint: it holds no weights; name a model_*.pth of a training.")
    return weights


def load_network(network: nn.Module, weights: Mapping[str, torch.Tensor], player: str, path: object) -> None:
    """Load the part of a whole game's weights that is `player`'s, or all of a file that holds one network alone.

    Args:
        network: gets them.
        weights: of `read_weights`.
        player: GENERATOR or DISCRIMINATOR.
        path: of the file, for errors.

    Raises:
        UserError: the file holds no such player, one of other sizes, or values that are not finite.
    """
    if any(name.startswith((GENERATOR, DISCRIMINATOR)) for name in weights):
        weights = {name.removeprefix(player): value for name, value in weights.items() if name.startswith(player)}
    if not weights.keys() & network.state_dict().keys():
        raise UserError(f"{path} holds no {player[:-1]} of cars; name a model_*.pth of a training.")
    if not all(value.isfinite().all() for value in weights.values()):
        raise UserError(f"{path} holds weights that are not finite; name a checkpoint from before that.")
    with as_user_error(
        f"{path} holds the weights of another network", "use the config it was trained with", RuntimeError
    ):
        network.load_state_dict(weights)


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
