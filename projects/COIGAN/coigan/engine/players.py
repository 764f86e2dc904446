"""The networks of a config."""

import torch
from torch import nn
from yacs.config import CfgNode

from coigan.modeling import DISCRIMINATOR_REGISTRY, GENERATOR_REGISTRY, build_network
from gan_plugin.layers.layout import to_channels_last

from .game import InpaintingGame


def build_generator(cfg: CfgNode, classes: int) -> nn.Module:
    """The generator of MODEL.GENERATOR for masks of so many classes, on the CPU.

    Raises:
        UserError: its name is unknown, or a value cannot work.
    """
    node = cfg.MODEL.GENERATOR
    options = {key.lower(): value for key, value in node.items() if key not in ("NAME", "BLEND_MARGIN")}
    network = build_network(GENERATOR_REGISTRY, node.NAME, "MODEL.GENERATOR.NAME", in_channels=3 + classes, **options)
    return to_channels_last(network)


def build_discriminator(cfg: CfgNode, player: str, in_channels: int) -> nn.Module:
    """The discriminator of MODEL.`player`, on the CPU; errors as above."""
    node = cfg.MODEL[player]
    network = build_network(
        DISCRIMINATOR_REGISTRY,
        node.NAME,
        f"MODEL.{player}.NAME",
        in_channels=in_channels,
        size=cfg.INPUT.SIZE,
        disc_width=node.WIDTH,
        channel_multiplier=node.CHANNEL_MULTIPLIER,
        stddev_group=node.STDDEV_GROUP,
        patch_layers=node.PATCH_LAYERS,
        norm=node.NORM,
        contrast=node.CONTRAST,
    )
    return to_channels_last(network)


def choose_device(name: str) -> torch.device:
    """The device of config key DEVICE; "" is the current GPU, or the CPU where there is none."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def build_game(cfg: CfgNode, classes: int) -> InpaintingGame:
    """All players of `cfg` for masks of so many classes, on its device, with weights drawn from the global state.

    Raises:
        UserError: see `build_generator` and InpaintingGame.
    """
    device = choose_device(cfg.DEVICE)
    reference = None
    if cfg.MODEL.REF_DISCRIMINATOR.ENABLED:
        reference = build_discriminator(cfg, "REF_DISCRIMINATOR", 3).to(device)
    generator = build_generator(cfg, classes).to(device)
    return InpaintingGame(cfg, generator, build_discriminator(cfg, "DISCRIMINATOR", 3 * classes).to(device), reference)
