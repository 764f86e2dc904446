"""From config keys to adversaries."""

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils import comm
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.errors import UserError
from gan_plugin.layers.multi_level_prroi_pool import MultiLevelPrRoIPool

from .adversary import Adversary, MaskAdversary
from .augment import DiscriminatorAugment
from .balance import GradientShare
from .discriminators import build_discriminator, discriminator_class, sight_of
from .gate import AccuracyGate
from .labels import LabelNoise
from .losses import build_objective
from .mask_memory import MaskMemory
from .presenters import BoxFeatures, MaskedFeatures, MaskedImages, PixelMasks, Presenter
from .regularizers import Regularizer


def build_adversaries(cfg: CfgNode, levels: Callable[[], Sequence[ShapeSpec]]) -> nn.ModuleDict:
    """The adversaries that `cfg.MODEL.GAN` switches on, by name: "mask" and "box".

    Args:
        cfg: with the plugin's keys.
        levels: gives channels and stride of the features that samples bring; asked if a discriminator looks at them.

    Raises:
        UserError: a key has an unknown value, or two of them exclude each other.
    """
    gan = cfg.MODEL.GAN
    adversaries = nn.ModuleDict()
    if gan.ENABLED and gan.MASK.ENABLED:
        adversaries["mask"] = _compiled(
            MaskAdversary(
                rec_weight=gan.MASK.REC_WEIGHT,
                rec_loss=check_choice("MODEL.GAN.MASK.REC_LOSS", gan.MASK.REC_LOSS),
                **_common(cfg, "MASK", levels),
            ),
            cfg,
        )
    if gan.ENABLED and gan.BOX.ENABLED:
        adversaries["box"] = _compiled(Adversary(name="box", **_common(cfg, "BOX", levels)), cfg)
    return adversaries


def _common(cfg: CfgNode, player: str, levels: Callable[[], Sequence[ShapeSpec]]) -> dict[str, Any]:
    gan, node = cfg.MODEL.GAN, cfg.MODEL.GAN[player]
    objective = build_objective(node.OBJECTIVE, f"MODEL.GAN.{player}.OBJECTIVE")
    regularizer = Regularizer(gan.REG.R1_GAMMA, gan.REG.GP_WEIGHT, gan.REG.EVERY)
    if objective.judges == "features" and (regularizer.is_due(0) or gan.GATE_ACCURACY):
        raise UserError(
            f"MODEL.GAN.{player}.OBJECTIVE {node.OBJECTIVE} gives no verdicts, which MODEL.GAN.REG.R1_GAMMA, GP_WEIGHT "
            "and MODEL.GAN.GATE_ACCURACY need; set those to 0."
        )
    if regularizer.is_due(0) and node.NORM == "SyncBN":
        raise UserError(
            f"MODEL.GAN.{player}.NORM SyncBN cannot be differentiated twice, as MODEL.GAN.REG.R1_GAMMA and GP_WEIGHT "
            "need it; set it to GN, or those to 0."
        )
    if gan.COMPILE and regularizer.is_due(0):
        raise UserError(
            "MODEL.GAN.COMPILE makes a discriminator that is differentiated once, but MODEL.GAN.REG.R1_GAMMA and "
            "GP_WEIGHT do it twice; set it to False, or those to 0."
        )
    if player == "MASK" and node.BOX_ONLY:
        _check_box_only(cfg)
    presenter, shape = _presenter(cfg, player, levels)
    memory = MaskMemory(node.MEMORY, shape.channels, shape.height) if player == "MASK" and node.BOX_ONLY else None
    return {
        **({"memory": memory} if memory else {}),
        "objective": objective,
        "discriminator": build_discriminator(cfg, player, shape),
        "presenter": presenter,
        "labels": LabelNoise(tuple(gan.LABELS.REAL), tuple(gan.LABELS.FAKE), gan.LABELS.FLIP_PROB),
        "weight": node.WEIGHT,
        "augment": DiscriminatorAugment(gan.DIFFAUG, node.INSTANCE_NOISE, presenter.background),
        "regularizer": regularizer,
        "balance": GradientShare(gan.BALANCE.SHARE, gan.BALANCE.MAX_FACTOR) if gan.BALANCE.SHARE else None,
        "gate": AccuracyGate(gan.GATE_ACCURACY) if gan.GATE_ACCURACY else None,
        "lockstep": node.NORM == "SyncBN" and comm.get_world_size() > 1,
    }


def _check_box_only(cfg: CfgNode) -> None:
    """Refuse what cannot be judged beside a truth of another object."""
    node = cfg.MODEL.GAN.MASK
    if sight_of(discriminator_class(cfg, "MASK"), "MASK") == "masked_features":
        raise UserError(
            f"MODEL.GAN.MASK.DISCRIMINATOR {node.DISCRIMINATOR} sees features, which change, while a memory of them "
            "would not, as MODEL.GAN.MASK.BOX_ONLY needs one; set it to MaskedImageDiscriminator."
        )
    if build_objective(node.OBJECTIVE).judges == "features":
        raise UserError(
            f"MODEL.GAN.MASK.OBJECTIVE {node.OBJECTIVE} compares each mask with its own truth, which "
            "MODEL.GAN.MASK.BOX_ONLY says that some have not; set it to Hinge or another one with verdicts."
        )


def _presenter(cfg: CfgNode, player: str, levels: Callable[[], Sequence[ShapeSpec]]) -> tuple[Presenter, ShapeSpec]:
    """How `player` shows its samples, and the shape of what is seen."""
    node = cfg.MODEL.GAN[player]
    sight = sight_of(discriminator_class(cfg, player), player)
    size = node.INPUT_SIZE
    fake = check_choice("MODEL.GAN.MASK.FAKE", cfg.MODEL.GAN.MASK.FAKE)
    if sight == "masks":
        return PixelMasks(size, fake), ShapeSpec(channels=1, height=size, width=size)
    if sight == "masked_images":
        return MaskedImages(size, fake), ShapeSpec(channels=4, height=size, width=size)
    shapes = levels()
    assignment = check_choice("MODEL.GAN.ROI_POOLING", cfg.MODEL.GAN.ROI_POOLING)
    pooler = MultiLevelPrRoIPool(size, [1 / level.stride for level in shapes], assignment)
    shape = ShapeSpec(channels=shapes[0].channels, height=size, width=size)
    return (MaskedFeatures(size, pooler, fake) if sight == "masked_features" else BoxFeatures(pooler)), shape


def _compiled(adversary: Adversary, cfg: CfgNode) -> Adversary:
    if cfg.MODEL.GAN.COMPILE:
        # In place, so that the names of the weights stay; the number of RoIs changes from step to step.
        adversary.discriminator.compile(dynamic=True)
    return adversary
