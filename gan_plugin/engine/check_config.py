"""What a run refuses: values and options that would fail deep inside, losses that are not finite; and idle keys."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    GeneralizedRCNN,
    PanopticFPN,
    ProposalNetwork,
    RetinaNet,
    SemanticSegmentor,
)
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from detectron2.projects.point_rend import PointRendMaskHead
from detectron2.projects.point_rend.point_head import POINT_HEAD_REGISTRY
from fvcore.common.registry import Registry
from torch import nn

from gan_plugin.config import RULES, add_gan_config, registered
from gan_plugin.config_files import flat, look_up
from gan_plugin.errors import UserError, explanation
from gan_plugin.evaluation.build import check_evaluation
from gan_plugin.evaluation.truth_boxes import drawing_of
from gan_plugin.modeling import AdversarialModel
from gan_plugin.modeling.discriminators import discriminator_class, presenter_class
from gan_plugin.modeling.objectives import OBJECTIVE_REGISTRY
from gan_plugin.modeling.timm_backbone import BUILDER
from gan_plugin.rules import AMOUNT, FREE, Rule, check_keys, whole

_logger = logging.getLogger(__name__)
# keys that a warning names
_NAMED = 4
_OFF = "MODEL.GAN.ENABLED is False"


def check_values(cfg: CfgNode, *, own_optimizer: bool = False) -> None:
    """Raise a UserError that names the first key whose value is out of range, and the range.

    Args:
        cfg: with the plugin's keys.
        own_optimizer: whether the trainer builds the generator's optimizer in its own way, whose names are its own.
    """
    rules = RULES | _OF_DETECTRON2
    check_keys(cfg, rules | {"SOLVER.OPTIMIZER": FREE} if own_optimizer else rules)
    check_evaluation(cfg)
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and cfg.SOLVER.MAX_ITER in cfg.SOLVER.STEPS:
        raise UserError(f"SOLVER.STEPS holds {cfg.SOLVER.MAX_ITER}, which is MAX_ITER; set steps before the end.")
    architecture = _check_names(cfg)
    _check_box_only(cfg)
    if cfg.TEST.AUG.ENABLED and (
        not issubclass(architecture, GeneralizedRCNN) or cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS
    ):
        raise UserError(
            "TEST.AUG.ENABLED is for a GeneralizedRCNN without keypoints and precomputed proposals; set it to False."
        )


def _check_box_only(cfg: CfgNode) -> None:
    """Refuse what does not go together with objects without a mask."""
    gan = cfg.MODEL.GAN
    if not gan.MASK.BOX_ONLY:
        if cfg.DATASETS.MASK_SHARE < 1:
            raise UserError(
                f"DATASETS.MASK_SHARE {cfg.DATASETS.MASK_SHARE} leaves objects without a mask; set "
                "MODEL.GAN.MASK.BOX_ONLY to True, or it to 1.0."
            )
        return
    if gan.UNPAIRED.TEACHER_WEIGHT and not gan.EMA.DECAY:
        raise UserError(
            "MODEL.GAN.UNPAIRED.TEACHER_WEIGHT needs a moving average of the model; set MODEL.GAN.EMA.DECAY to 0.99 or "
            "so, or the weight to 0."
        )
    if not cfg.MODEL.MASK_ON:
        raise UserError("MODEL.GAN.MASK.BOX_ONLY is for models with masks; set it to False, or MODEL.MASK_ON to True.")


def _check_names(cfg: CfgNode) -> type:
    """Refuse an unknown name of any part that the chosen model builds; returns the class of the model."""

    def part(key: str, registry: Registry) -> type:
        found = registered(f"MODEL.{key}", look_up(cfg.MODEL, key), registry)
        # a registered function has no parts that are known here
        return found if isinstance(found, type) else object

    model, architecture = cfg.MODEL, part("META_ARCHITECTURE", META_ARCH_REGISTRY)
    # A class that builds its parts in its own way may take them from registries of its own.
    stock = (GeneralizedRCNN, ProposalNetwork, RetinaNet, SemanticSegmentor, PanopticFPN)
    if _builds(architecture, "from_config", *stock):
        part("BACKBONE.NAME", BACKBONE_REGISTRY)
    proposes = _builds(architecture, "from_config", GeneralizedRCNN, ProposalNetwork, PanopticFPN)
    if proposes and model.PROPOSAL_GENERATOR.NAME != "PrecomputedProposals":
        proposals = part("PROPOSAL_GENERATOR.NAME", PROPOSAL_GENERATOR_REGISTRY)
        if _builds(proposals, "from_config", RPN):
            part("RPN.HEAD_NAME", RPN_HEAD_REGISTRY)
            part("ANCHOR_GENERATOR.NAME", ANCHOR_GENERATOR_REGISTRY)
    if _builds(architecture, "from_config", RetinaNet):
        part("ANCHOR_GENERATOR.NAME", ANCHOR_GENERATOR_REGISTRY)
    if _builds(architecture, "from_config", PanopticFPN, SemanticSegmentor):
        part("SEM_SEG_HEAD.NAME", SEM_SEG_HEADS_REGISTRY)
    if _builds(architecture, "from_config", GeneralizedRCNN, PanopticFPN):
        heads = part("ROI_HEADS.NAME", ROI_HEADS_REGISTRY)
        if _builds(heads, "_init_box_head", StandardROIHeads, CascadeROIHeads):
            part("ROI_BOX_HEAD.NAME", ROI_BOX_HEAD_REGISTRY)
        if model.KEYPOINT_ON and _builds(heads, "_init_keypoint_head", StandardROIHeads):
            part("ROI_KEYPOINT_HEAD.NAME", ROI_KEYPOINT_HEAD_REGISTRY)
        masks = _builds(heads, "_init_mask_head", StandardROIHeads) or _builds(heads, "from_config", Res5ROIHeads)
        if model.MASK_ON and masks:
            mask_head = part("ROI_MASK_HEAD.NAME", ROI_MASK_HEAD_REGISTRY)
            if issubclass(mask_head, PointRendMaskHead) and model.ROI_MASK_HEAD.POINT_HEAD_ON:
                part("POINT_HEAD.NAME", POINT_HEAD_REGISTRY)
    for player in ("MASK", "BOX"):
        if model.GAN.ENABLED and model.GAN[player].ENABLED:
            discriminator_class(cfg, player)
            part(f"GAN.{player}.OBJECTIVE", OBJECTIVE_REGISTRY)
    return architecture


def _builds(kind: type, method: str, *known: type) -> bool:
    """Whether `kind` builds its parts by that method of one of the `known` classes."""
    own = getattr(getattr(kind, method, None), "__func__", None)
    return own is not None and any(own is getattr(getattr(one, method), "__func__", None) for one in known)


def keys_without_effect(cfg: CfgNode) -> dict[str, list[str]]:
    """{why: keys} of all that `cfg` sets to other values than their defaults although nothing looks at them."""
    default = get_cfg()
    add_gan_config(default)
    defaults, now = flat(default), flat(cfg)
    changed = [key for key, value in now.items() if key in defaults and value != defaults[key]]
    found: dict[str, list[str]] = {}
    for why, idle, keys in _idle(cfg):
        hits = [key for key in changed if idle and key.startswith(keys) and not key.endswith(".ENABLED")]
        changed = [key for key in changed if key not in hits]
        if hits:
            found[why] = hits
    return found


def _idle(cfg: CfgNode) -> Iterator[tuple[str, bool, tuple[str, ...]]]:
    """(why, whether it is so, beginnings of the keys that have no effect then)."""
    gan = cfg.MODEL.GAN
    optimizer, of_disc = cfg.SOLVER.OPTIMIZER.lower(), cfg.SOLVER.DISC.OPTIMIZER.lower()
    of_game = tuple(f"MODEL.GAN.{key}" for key in gan if key not in ("ENABLED", "EMA", "MASK", "UNPAIRED"))
    of_game += tuple(f"MODEL.GAN.MASK.{key}" for key in gan.MASK if key != "BOX_ONLY")
    yield _OFF, not gan.ENABLED, (*of_game, "SOLVER.DISC.")
    players = [player for player in ("MASK", "BOX") if gan[player].ENABLED]
    for player in ("MASK", "BOX"):
        yield (
            f"MODEL.GAN.{player}.ENABLED is False",
            player not in players,
            tuple(f"MODEL.GAN.{player}.{key}" for key in gan[player] if key != "BOX_ONLY"),
        )
    alone = ("MODEL.GAN.MASK.MEMORY", "MODEL.GAN.UNPAIRED.")
    yield "MODEL.GAN.MASK.BOX_ONLY is False", not gan.MASK.BOX_ONLY, alone
    pairwise = tuple(f"MODEL.GAN.UNPAIRED.PAIRWISE_{key}" for key in ("THRESHOLD", "DILATION", "WARMUP"))
    yield "MODEL.GAN.UNPAIRED.PAIRWISE_WEIGHT is 0", gan.UNPAIRED.PAIRWISE_WEIGHT == 0, pairwise
    joint = ("MODEL.GAN.ORDER", "MODEL.GAN.DISC_STEPS", "SOLVER.DISC.")
    yield "MODEL.GAN.MODE is joint", gan.MODE == "joint", joint
    yield "MODEL.GAN.MODE is alternating", gan.MODE == "alternating", ("MODEL.GAN.DISC_LR_FACTOR",)
    momentum = ("SOLVER.MOMENTUM", "SOLVER.NESTEROV", "MODEL.GAN.DISC_LR_FACTOR")
    yield f"SOLVER.OPTIMIZER is {optimizer}", optimizer in ("adam", "adamw"), momentum
    yield "SOLVER.OPTIMIZER is sgd", optimizer == "sgd", ("SOLVER.BETAS",)
    yield "SOLVER.DISC.OPTIMIZER is sgd", of_disc == "sgd", ("SOLVER.DISC.BETAS",)
    yield f"SOLVER.DISC.OPTIMIZER is {of_disc}", of_disc in ("adam", "adamw"), ("SOLVER.DISC.MOMENTUM",)
    yield "MODEL.GAN.EMA.DECAY is 0", gan.EMA.DECAY == 0, ("MODEL.GAN.EMA.EVALUATE",)
    yield "MODEL.GAN.BALANCE.SHARE is 0", gan.BALANCE.SHARE == 0, ("MODEL.GAN.BALANCE.MAX_FACTOR",)
    teacher = tuple(f"MODEL.GAN.UNPAIRED.TEACHER_{key}" for key in ("CONFIDENCE", "WARMUP", "TRUST"))
    yield "MODEL.GAN.UNPAIRED.TEACHER_WEIGHT is 0", gan.UNPAIRED.TEACHER_WEIGHT == 0, teacher
    judged = gan.ENABLED and gan.MASK.ENABLED
    yield "there is no discriminator of masks", not judged, ("MODEL.GAN.UNPAIRED.TEACHER_TRUST",)
    penalties = gan.REG.R1_GAMMA or gan.REG.GP_WEIGHT
    yield "MODEL.GAN.REG has no penalty", not penalties, ("MODEL.GAN.REG.EVERY",)
    yield "MODEL.GAN.MASK.MATCHING is proposal", gan.MASK.MATCHING == "proposal", ("MODEL.GAN.MASK.MATCH_IOU",)
    if gan.ENABLED:
        looks = any(presenter_class(discriminator_class(cfg, player), player).wants_features for player in players)
        yield "no discriminator looks at RoI features", not looks, ("MODEL.GAN.ROI_POOLING",)
        labels = any(OBJECTIVE_REGISTRY.get(gan[player].OBJECTIVE).uses_labels for player in players)
        yield "no objective knows labels", not labels, ("MODEL.GAN.LABELS.",)
    yield f"MODEL.BACKBONE.NAME is not {BUILDER}", cfg.MODEL.BACKBONE.NAME != BUILDER, ("MODEL.TIMM.",)
    yield "DATASETS.TEST is empty", not cfg.DATASETS.TEST, ("TEST.EVAL_PERIOD", "TEST.BEST_METRIC", "TEST.AUG.")
    yield "TEST.AUG.ENABLED is False", not cfg.TEST.AUG.ENABLED, ("TEST.AUG.",)


def warn_of_idle_keys(cfg: CfgNode) -> None:
    """A warning in the log for each of `keys_without_effect`'s reasons, with the first few keys.

    Only a note where the whole game is off: that is how a baseline is made of a config with a game.
    """
    for why, keys in keys_without_effect(cfg).items():
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        has = "have" if len(keys) > 1 else "has"
        level = logging.INFO if why == _OFF else logging.WARNING
        _logger.log(level, f"{', '.join(keys[:_NAMED])}{more} {has} no effect, because {why}.")


def _is_device(value: str) -> bool:
    try:
        return bool(torch.device(value))
    except RuntimeError:
        return False


_OF_DETECTRON2 = {
    "MODEL.DEVICE": Rule(_is_device, "cuda or cpu"),
    "SOLVER.MAX_ITER": whole(1),
    "SOLVER.BASE_LR": AMOUNT,
    "SOLVER.MOMENTUM": AMOUNT,
    "SOLVER.WEIGHT_DECAY": AMOUNT,
}


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss became NaN or infinite; the generator's weights have not seen it."""


def check_finite(losses: Mapping[str, torch.Tensor], iteration: int) -> None:
    """Raise NonFiniteLossError, which names the losses and the iteration, unless all of `losses` are finite."""
    # One transfer for all of them: each makes a GPU wait.
    values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
    bad = [f"{name} is {value}" for name, value in zip(losses, values, strict=True) if not math.isfinite(value)]
    if bad:
        raise diverged(iteration, ", ".join(bad))


def diverged(iteration: int, what: str) -> NonFiniteLossError:
    """The error of a run that diverged at `iteration`, with `what` was not finite."""
    return NonFiniteLossError(
        f"Training stopped at iteration {iteration}: {what.rstrip('.! ')}. The last checkpoint is kept; lower "
        "SOLVER.BASE_LR or SOLVER.DISC.BASE_LR, or switch SOLVER.CLIP_GRADIENTS on, and continue with --resume."
    )


def refuse_unsupported(cfg: CfgNode, model: nn.Module) -> None:
    """Raise a UserError if `cfg` asks for what this model, or this machine, cannot do."""
    gan = cfg.MODEL.GAN
    key = "MODEL.GAN.ENABLED" if gan.ENABLED else "MODEL.GAN.MASK.BOX_ONLY"
    if (gan.ENABLED or gan.MASK.BOX_ONLY) and not isinstance(model, AdversarialModel):
        raise UserError(
            f"{key} is True, but build_model has made a {type(model).__name__} that was not built from the "
            "config, so nothing observes it; build it by its constructor with the config, or set the key to False."
        )
    if cfg.TEST.TRUTH_BOXES:
        drawing_of(model)
    if cfg.TEST.PRECISE_BN.ENABLED and (gan.ENABLED or gan.EMA.DECAY > 0):
        raise UserError("TEST.PRECISE_BN.ENABLED does not go together with MODEL.GAN; set it to False.")
    if cfg.SOLVER.GRADIENT_SHARES_PERIOD and gan.ENABLED and gan.COMPILE and not gan.BALANCE.SHARE:
        raise UserError(
            "SOLVER.GRADIENT_SHARES_PERIOD goes back through a discriminator twice where MODEL.GAN.BALANCE.SHARE is 0, "
            "which MODEL.GAN.COMPILE does not allow; set one of them to 0 or False."
        )
    if not (gan.ENABLED and gan.MODE == "alternating"):
        return
    if not (gan.MASK.ENABLED or gan.BOX.ENABLED):
        raise UserError(
            "MODEL.GAN.MODE alternating needs a discriminator; set MODEL.GAN.MASK.ENABLED or MODEL.GAN.BOX.ENABLED to "
            "True."
        )
    if cfg.SOLVER.ACCUMULATE > 1 and (gan.ORDER != "paper" or gan.DISC_STEPS > 1):
        raise UserError(
            f"SOLVER.ACCUMULATE {cfg.SOLVER.ACCUMULATE} needs MODEL.GAN.ORDER paper and MODEL.GAN.DISC_STEPS 1 in the "
            "alternating mode: a discriminator that steps first would have to see all batches first."
        )


@contextmanager
def quiet_user_errors() -> Iterator[None]:
    """Within the block Detectron2's training loop logs no traceback for an error whose explanation says it all."""
    logger = logging.getLogger("detectron2.engine.train_loop")

    def keep(record: logging.LogRecord) -> bool:
        return not (record.exc_info and explanation(record.exc_info[1]))

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
