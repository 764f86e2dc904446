"""Which values the config keys may have, and which go together."""

from yacs.config import CfgNode

from gan_plugin.config import check_name
from gan_plugin.errors import UserError
from gan_plugin.modeling.timm_weights import FEATURES

_NORMS = ("BN", "GN", "SyncBN")
# of gan_plugin's; colours are for single images, not for a canvas of each class
_AUGMENTS = ("translation", "cutout", "flip")
# key of SOLVER -> the least value
_LEAST = {
    "MAX_ITER": 1,
    "IMS_PER_BATCH": 1,
    "DISC_STEPS": 1,
    "GEN_STEPS": 1,
    "REF_DISC_STEPS_DELAY": 1,
    "NUM_WORKERS": 0,
    "CHECKPOINT_PERIOD": 1,
    "WRITE_PERIOD": 1,
}


def check_config(cfg: CfgNode) -> None:
    """Raise a UserError for a value out of range or values that cannot work together, before anything is loaded."""
    for key, bound in _LEAST.items():
        if cfg.SOLVER[key] < bound:
            raise UserError(f"SOLVER.{key} is {cfg.SOLVER[key]}; set it to {bound} or more.")
    for name in ("PATH_LENGTH", "R1"):
        if cfg.LOSS[name].EVERY < 1:
            raise UserError(f"LOSS.{name}.EVERY is {cfg.LOSS[name].EVERY}; set it to 1 or more.")
    for name in ("GENERATOR", "DISCRIMINATOR", "REF_DISCRIMINATOR"):
        if cfg.MODEL[name].NORM not in _NORMS:
            raise UserError(f"MODEL.{name}.NORM is {cfg.MODEL[name].NORM!r}; set it to BN, GN or SyncBN.")
    for key, choice in (("TEST.FEATURES", cfg.TEST.FEATURES), ("LOSS.FEATURES.NETWORK", cfg.LOSS.FEATURES.NETWORK)):
        check_name(key, choice, FEATURES)
    if not cfg.MODEL.REF_DISCRIMINATOR.ENABLED:
        for name in ("FEATURE_MATCHING", "DISC_PERCEPTUAL"):
            if cfg.LOSS[name].WEIGHT > 0:
                raise UserError(f"LOSS.{name} needs MODEL.REF_DISCRIMINATOR.ENABLED True.")
    augments = {name.strip() for name in cfg.LOSS.DIFFAUG.split(",") if name.strip()}
    if not augments <= set(_AUGMENTS):
        raise UserError(f"LOSS.DIFFAUG is {cfg.LOSS.DIFFAUG!r}; set it to some of {','.join(_AUGMENTS)}, or to ''.")
    if cfg.LOSS.MASKED_PATCHES:
        if cfg.MODEL.REF_DISCRIMINATOR.NAME != "PatchDiscriminator":
            raise UserError("LOSS.MASKED_PATCHES needs MODEL.REF_DISCRIMINATOR.NAME PatchDiscriminator.")
        # they would move the patches away from the masks
        if augments - {"cutout"}:
            raise UserError(
                f"LOSS.MASKED_PATCHES is for images that stay where their masks are, but LOSS.DIFFAUG is "
                f"{cfg.LOSS.DIFFAUG!r}; set it to cutout or '', or LOSS.MASKED_PATCHES to False."
            )
