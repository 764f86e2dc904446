"""The registered networks, and how a config names one of them."""

import inspect
from typing import Any

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
