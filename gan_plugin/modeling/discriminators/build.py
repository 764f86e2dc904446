"""The registry of discriminators and its builder."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.config import check_name
from gan_plugin.errors import UserError

DISCRIMINATOR_REGISTRY: Registry = Registry("DISCRIMINATOR")
DISCRIMINATOR_REGISTRY.__doc__ = """
Discriminators: modules that take a batch of samples, (R, C, S, S), and return logits, (R,) or (R, H, W). Each is built
as `cls(cfg, player, input_shape)`, where `cfg.MODEL.GAN[player]` holds its keys and player is "MASK" or "BOX"; register
your own with `@DISCRIMINATOR_REGISTRY.register()` and name it in `MODEL.GAN.MASK.DISCRIMINATOR`. Class attributes:

    sees: "masks" (the default), "masked_images", "masked_features" or "box_features".
    conditional: True if it is called with the (R,) classes as well.
"""

# what either player can show to a discriminator; the first is the default of a class without `sees`
SIGHTS = {"MASK": ("masks", "masked_images", "masked_features"), "BOX": ("box_features",)}


def discriminator_class(cfg: CfgNode, player: str) -> type[nn.Module]:
    """The class that `cfg.MODEL.GAN[player].DISCRIMINATOR` names.

    Raises:
        UserError: it is unknown, or made for the other player; the sentence lists the ones to choose from.
    """
    key, name = f"MODEL.GAN.{player}.DISCRIMINATOR", cfg.MODEL.GAN[player].DISCRIMINATOR
    fitting = sorted(entry for entry, cls in DISCRIMINATOR_REGISTRY if sight_of(cls, player) in SIGHTS[player])
    if name not in DISCRIMINATOR_REGISTRY:
        check_name(key, name, fitting)
    if name not in fitting:
        raise UserError(f"{key} is {name}, which judges something else; set it to one of {', '.join(fitting)}.")
    return DISCRIMINATOR_REGISTRY.get(name)


def sight_of(cls: type, player: str) -> str:
    """What a discriminator of `player` wants to see."""
    return getattr(cls, "sees", SIGHTS[player][0])


def build_discriminator(cfg: CfgNode, player: str, input_shape: ShapeSpec) -> nn.Module:
    """The discriminator of `player` ("MASK" or "BOX") for inputs of `input_shape`.

    Raises:
        UserError: as `discriminator_class`, or a key of `cfg.MODEL.GAN[player]` has a value that cannot work.
    """
    return discriminator_class(cfg, player)(cfg, player, input_shape)
