"""The registered networks, and how a config names one of them."""

import inspect
from typing import Any

import torch
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.config import registered

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
