"""The registry of discriminators and its builder."""

from detectron2.config import CfgNode
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.errors import UserError

DISCRIMINATOR_REGISTRY: Registry = Registry("DISCRIMINATOR")
DISCRIMINATOR_REGISTRY.__doc__ = """
Discriminators: modules that take a batch of samples, (R, C, S, S) in [-1, 1], and return (R,) logits. Each is built as
`cls(cfg)`; register your own with `@DISCRIMINATOR_REGISTRY.register()` and name it in `MODEL.GAN.MASK.DISCRIMINATOR`.
"""


def build_discriminator(cfg: CfgNode) -> nn.Module:
    """The discriminator that `cfg.MODEL.GAN.MASK.DISCRIMINATOR` names.

    Raises:
        UserError: no discriminator has that name; the sentence lists the registered ones.
    """
    name = cfg.MODEL.GAN.MASK.DISCRIMINATOR
    if name not in DISCRIMINATOR_REGISTRY:
        known = ", ".join(sorted(key for key, _ in DISCRIMINATOR_REGISTRY))
        raise UserError(f"MODEL.GAN.MASK.DISCRIMINATOR is {name!r}, which is unknown; the registered ones are {known}.")
    return DISCRIMINATOR_REGISTRY.get(name)(cfg)
