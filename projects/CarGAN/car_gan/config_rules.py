"""Which values the config keys of a training may have."""

import math
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode as CN

from gan_plugin.config import check_name
from gan_plugin.config_files import look_up
from gan_plugin.errors import UserError
from gan_plugin.modeling.timm_weights import FEATURES

CHOICES = {
    "MODEL.INIT": ("normal", "orthogonal", "xavier"),
    "MODEL.LATENT.DISTRIBUTION": ("normal", "uniform"),
    "MODEL.GENERATOR.LAST": ("up", "flat"),
    "MODEL.GENERATOR.FIRST_SIDE": (2, 4),
    "MODEL.GENERATOR.UPSAMPLE": ("transposed", "resize"),
    "MODEL.ORTHOGONAL.FORM": ("full", "off_diagonal"),
    "SOLVER.SCHEDULE": ("constant", "linear"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("norm", "value"),
    "INPUT.CHANNELS": (3, 4),
    "SOLVER.ORDER": ("alternating", "simultaneous"),
    "TEST.FEATURES": FEATURES,
}
_POSITIVE = (
    "MODEL.LATENT.SIZE",
    "MODEL.GENERATOR.WIDTH",
    "MODEL.DISCRIMINATOR.WIDTH",
    "MODEL.ENCODER.WIDTH",
    "MODEL.LOGAN.BETA",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.ACCUMULATE",
    "SOLVER.MAX_EPOCHS",
    "SOLVER.DISC.STEPS",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
    "SOLVER.CHECKPOINT_EPOCHS",
    "TEST.SAMPLES",
    "TEST.BATCH",
)
_AMOUNTS = (
    "MODEL.GAN.INSTANCE_NOISE",
    "MODEL.GENERATOR.SLOPE",
    "MODEL.ORTHOGONAL.WEIGHT",
    "MODEL.LOGAN.ALPHA",
    "MODEL.LOGAN.CLIP",
    "MODEL.LOGAN.PENALTY",
    "MODEL.ENCODER.LATENT_WEIGHT",
    "MODEL.ENCODER.IMAGE_WEIGHT",
    "MODEL.ENCODER.ADVERSARIAL_WEIGHT",
    "SOLVER.MAX_ITER",
    "SOLVER.BASE_LR",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.DISC.BASE_LR",
    "SOLVER.DISC.WEIGHT_DECAY",
    "SOLVER.KEEP",
    "TEST.EVAL_EPOCHS",
    "VIS_EPOCHS",
)
_RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_POSITIVE, lambda value: 0 < value < math.inf, "a number above 0"),
    (_AMOUNTS, lambda value: 0 <= value < math.inf, "a finite number, 0 or more"),
    (("MODEL.LOGAN.SHARE",), lambda value: 0 < value <= 1, "a share above 0, at most 1"),
    (("MODEL.GAN.EMA.DECAY",), lambda value: 0 <= value < 1, "0 for no average, or below 1"),
    (("SOLVER.BETAS", "SOLVER.DISC.BETAS"), lambda value: len(value) == 2, "two numbers in [0, 1)"),
)


def check_config(cfg: CN) -> None:
    """Raise a UserError that names the first key whose value is out of range, and the range."""
    for key, choices in CHOICES.items():
        check_name(key, look_up(cfg, key), choices)
    for keys, is_good, expected in _RULES:
        for key in keys:
            if not is_good(value := look_up(cfg, key)):
                raise UserError(f"{key} is {value!r}; set it to {expected}.")
    if cfg.MODEL.LABEL.KIND and cfg.MODEL.ENCODER.ENABLED:
        raise UserError("MODEL.ENCODER knows no labels; set MODEL.LABEL.KIND to '' or MODEL.ENCODER.ENABLED to False.")
