"""Values of config keys that would only fail deep inside, refused with a sentence."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, ROI_MASK_HEAD_REGISTRY

from gan_plugin.config import CHOICES, check_choice
from gan_plugin.errors import UserError
from gan_plugin.evaluation.build import check_evaluation


def check_values(cfg: CfgNode) -> None:
    """Raise a UserError that names the first key whose value is out of range, and the range."""
    for key, is_good, expected in _RULES:
        value = _value_of(cfg, key)
        if not is_good(value):
            raise UserError(f"{key} is {value!r}; set it to {expected}.")
    for key in CHOICES:
        check_choice(key, _value_of(cfg, key))
    check_evaluation(cfg)
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and cfg.SOLVER.MAX_ITER in cfg.SOLVER.STEPS:
        raise UserError(f"SOLVER.STEPS holds {cfg.SOLVER.MAX_ITER}, which is MAX_ITER; set steps before the end.")
    for key, name, registry in (
        ("MODEL.META_ARCHITECTURE", cfg.MODEL.META_ARCHITECTURE, META_ARCH_REGISTRY),
        ("MODEL.ROI_MASK_HEAD.NAME", cfg.MODEL.ROI_MASK_HEAD.NAME, ROI_MASK_HEAD_REGISTRY),
    ):
        if name not in registry:
            known = ", ".join(sorted(entry for entry, _ in registry))
            raise UserError(f"{key} is {name!r}, which is unknown; the registered ones are {known}.")


def _value_of(cfg: CfgNode, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    return value


def _at_least(low: float) -> Callable[[Any], bool]:
    return lambda value: value >= low


def _is_amount(value: float) -> bool:
    return 0 <= value < math.inf


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def _are_sizes(value: Sequence[Any]) -> bool:
    return len(value) == 3 and all(isinstance(size, int) and size >= 0 for size in value) and sum(value) > 0


def _are_betas(value: Sequence[Any]) -> bool:
    return len(value) == 2 and all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in value)


def _are_widths(value: Sequence[Any]) -> bool:
    return all(isinstance(width, int) and width > 0 for width in value)


def _is_device(value: str) -> bool:
    try:
        return bool(torch.device(value))
    except RuntimeError:
        return False


_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("MODEL.DEVICE", _is_device, "cuda or cpu"),
    ("MODEL.GAN.START_ITER", _at_least(0), "0 or more"),
    ("MODEL.GAN.WARMUP_ITERS", _at_least(0), "0 or more"),
    ("MODEL.GAN.DISC_LR_FACTOR", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.VIS_PERIOD", _at_least(0), "0 or more"),
    ("MODEL.GAN.MASK.WEIGHT", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.MASK.REC_WEIGHT", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.BOX.WEIGHT", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.MASK.MATCH_IOU", _is_share, "a number from 0 to 1"),
    ("MODEL.GAN.MASK.INSTANCE_NOISE", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.BOX.INSTANCE_NOISE", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.MASK.INPUT_SIZE", _at_least(1), "1 or more"),
    ("MODEL.GAN.BOX.INPUT_SIZE", _at_least(1), "1 or more"),
    ("MODEL.GAN.DISC_STEPS", _at_least(1), "1 or more"),
    ("MODEL.GAN.GATE_ACCURACY", lambda value: 0 <= value < 1, "0 for no gate, or below 1"),
    ("MODEL.GAN.BALANCE.MAX_WEIGHT", _at_least(0), "0 or more"),
    ("MODEL.GAN.REG.R1_GAMMA", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.REG.GP_WEIGHT", _is_amount, "a finite number, 0 or more"),
    ("MODEL.GAN.REG.EVERY", _at_least(1), "1 or more"),
    ("MODEL.GAN.EMA.DECAY", lambda value: 0 <= value < 1, "0 for no average, or below 1"),
    ("MODEL.GAN.MASK.CHANNELS", _are_widths, "positive whole numbers"),
    ("MODEL.GAN.BOX.CHANNELS", _are_widths, "positive whole numbers"),
    ("SOLVER.ACCUMULATE", _at_least(1), "1 or more"),
    ("SOLVER.MAX_ITER", _at_least(1), "1 or more"),
    ("SOLVER.BASE_LR", _is_amount, "a finite number, 0 or more"),
    ("SOLVER.DISC.BASE_LR", _is_amount, "a finite number, 0 or more"),
    ("SOLVER.BETAS", _are_betas, "two numbers in [0, 1)"),
    ("SOLVER.DISC.BETAS", _are_betas, "two numbers in [0, 1)"),
    ("SOLVER.DISC.MOMENTUM", _is_amount, "a finite number, 0 or more"),
    ("SOLVER.MOMENTUM", _is_amount, "a finite number, 0 or more"),
    ("SOLVER.WEIGHT_DECAY", _is_amount, "a finite number, 0 or more"),
    ("SOLVER.DISC.WEIGHT_DECAY", _is_amount, "a finite number, 0 or more"),
    ("DATASETS.PENN_FUDAN.SIZES", _are_sizes, "three numbers of images"),
    ("DATASETS.SUBSETS.SIZES", _are_sizes, "three numbers of images"),
)
