"""The registered networks, and the players of a config."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from fvcore.common.registry import Registry
from torch import nn
from yacs.config import CfgNode

from coigan.config import check_value
from gan_plugin.compat import fused_adam
from gan_plugin.config import registered
from gan_plugin.errors import as_user_error
from gan_plugin.layers.layout import to_channels_last

GENERATOR_REGISTRY: Registry = Registry("COIGAN_GENERATOR")
DISCRIMINATOR_REGISTRY: Registry = Registry("COIGAN_DISCRIMINATOR")


def build_network(registry: Registry, name: str, key: str, **arguments: Any) -> nn.Module:
    """The network registered as `name`, with those of `arguments` that its constructor knows.

    A config holds the options of all networks; each takes its own.

    Args:
        registry: one of the registries above.
        name: what config key `key` says.
        key: for sentences about a wrong name.
        arguments: constructor arguments by name.

    Raises:
        UserError: no network has that name; the sentence lists the registered ones.
    """
    network = registered(key, name, registry)
    known_arguments = inspect.signature(network).parameters
    return network(**{key: value for key, value in arguments.items() if key in known_arguments})


def judge_pair(network: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of `network` on both, (N, C, H, W) each, as two calls of it would give them, in float32.

    A network that has `keeps_batches_apart` gets both in one call, which is faster where its feature maps are small.
    Batch normalisation has no way to keep them apart.
    """
    if getattr(network, "keeps_batches_apart", False) and real.shape == fake.shape:
        on_real, on_fake = network(torch.cat([real, fake]), batches=2).chunk(2)
    else:
        on_real, on_fake = network(real), network(fake)
    # a loss in float16 could not hold the scaled gradient that it starts from
    return on_real.float(), on_fake.float()


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


def build_optimizer(solver: CfgNode, parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """The optimizer that SOLVER.OPTIMIZER names, over `parameters`, with learning rate `rate`.

    Raises:
        UserError: there is none of that name, or a value is out of range.
    """
    betas, decay = tuple(solver.BETAS), solver.WEIGHT_DECAY
    with as_user_error("SOLVER is wrong", "correct LR, DISC_LR, BETAS or WEIGHT_DECAY", ValueError, IndexError):
        match check_value("SOLVER.OPTIMIZER", solver.OPTIMIZER):
            case "adamw":
                return fused_adam(torch.optim.AdamW, parameters, lr=rate, betas=betas, weight_decay=decay)
            case "adam":
                return fused_adam(torch.optim.Adam, parameters, lr=rate, betas=betas, weight_decay=decay)
            case "sgd":
                return torch.optim.SGD(parameters, rate, momentum=betas[1], weight_decay=decay)
            case _:
                return torch.optim.RMSprop(parameters, rate, alpha=betas[1], weight_decay=decay)
