"""The names by which configs call our parts: one call that edits a LazyConfig's model, and heads for YAML."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from detectron2.modeling import ROI_HEADS_REGISTRY, ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads, MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig
from torch import nn

from gan_plugin.config import add_gan_config
from gan_plugin.errors import UserError

from .adversary import MaskAdversary, adversaries
from .discriminators import PixelMaskDiscriminator
from .meta_arch import adversarial_class
from .objectives import NonSaturatingBCE
from .presenters import DiscriminatorAugment, PixelMasks
from .samples import MaskSampler
from .stability import GradientShare, LabelNoise, Regularizer


@ROI_MASK_HEAD_REGISTRY.register()
class AdversarialMaskHead(MaskRCNNConvUpsampleHead):
    """Detectron2's mask head."""


@ROI_HEADS_REGISTRY.register()
class AdversarialROIHeads(StandardROIHeads):
    """Detectron2's RoI heads."""


@ROI_HEADS_REGISTRY.register()
class AdversarialCascadeROIHeads(CascadeROIHeads):
    """Detectron2's Cascade heads; the box adversary judges the boxes of the last stage, the ones inference uses."""


def build_adversarial(*, architecture: Any, **arguments: Any) -> nn.Module:
    """A model of `adversarial_class(architecture)`.

    Args:
        architecture: the class, or its full name.
        arguments: those of the class and of `AdversarialModel`.
    """
    kind = locate(architecture) if isinstance(architecture, str) else architecture
    return adversarial_class(kind)(**arguments)


def make_adversarial(model: DictConfig) -> DictConfig:
    """Edit the LazyConfig node of a model that draws masks, so that a discriminator judges them; returns the node.

    All that the node says of the model stays where it is. It also says then, with the defaults that YAML configs have:
    `adversaries.mask` (the discriminator, its objective and weights), `sampler`, `mode`, `start_iter`, `warmup_iters`,
    `disc_lr_factor` and `sample_period`, the arguments of `AdversarialModel`.

    Raises:
        UserError: it is no call that builds a model, or has been edited already.
    """
    if not isinstance(model, DictConfig) or "_target_" not in model or "adversaries" in model:
        raise UserError(
            "make_adversarial takes the node of a plain model, such as cfg.model of a LazyConfig, and this is "
            f"{'one already' if isinstance(model, DictConfig) and 'adversaries' in model else 'none'}; call it once."
        )
    defaults = CfgNode({"MODEL": {}})
    add_gan_config(defaults)
    gan, mask = defaults.MODEL.GAN, defaults.MODEL.GAN.MASK
    model.architecture = _convert_target_to_string(model._target_) if callable(model._target_) else model._target_
    model._target_ = build_adversarial
    model.adversaries = L(adversaries)(
        mask=L(MaskAdversary)(
            weight=mask.WEIGHT,
            rec_weight=mask.REC_WEIGHT,
            rec_loss=mask.REC_LOSS,
            balance=L(GradientShare)(share=gan.BALANCE.SHARE, max_factor=gan.BALANCE.MAX_FACTOR),
            objective=L(NonSaturatingBCE)(),
            discriminator=L(PixelMaskDiscriminator)(
                input_size=mask.INPUT_SIZE,
                channels=tuple(mask.CHANNELS),
                norm=mask.NORM,
                spectral=gan.REG.SPECTRAL_NORM,
                judges="logits",
            ),
            presenter=L(PixelMasks)(size="${..discriminator.input_size}", fake=mask.FAKE),
            labels=L(LabelNoise)(real=gan.LABELS.REAL, fake=gan.LABELS.FAKE, flip_prob=gan.LABELS.FLIP_PROB),
            augment=L(DiscriminatorAugment)(policy="", noise=0.0, background=-1.0),
            regularizer=L(Regularizer)(r1_gamma=0.0, gp_weight=0.0, every=gan.REG.EVERY),
        )
    )
    model.sampler = L(MaskSampler)(
        real=mask.REAL,
        matching=mask.MATCHING,
        match_iou=mask.MATCH_IOU,
        logits=mask.LOGITS,
        margin=mask.MARGIN,
        side=mask.INPUT_SIZE,
    )
    model.mode, model.disc_lr_factor = gan.MODE, gan.DISC_LR_FACTOR
    model.start_iter, model.warmup_iters, model.sample_period = gan.START_ITER, gan.WARMUP_ITERS, gan.VIS_PERIOD
    return model
