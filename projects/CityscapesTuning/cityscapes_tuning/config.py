"""Config keys of a trial, beside Detectron2's and gan_plugin's; no other place knows a default."""

from detectron2.config import CfgNode as CN

from gan_plugin.config_files import look_up
from gan_plugin.errors import UserError

FREEZABLE = {
    "backbone": ("backbone.bottom_up.",),
    "fpn": ("backbone.fpn_",),
    "rpn": ("proposal_generator.",),
    "box_head": ("roi_heads.box_head.", "roi_heads.box_predictor."),
    "mask_head": ("roi_heads.mask_head.",),
}
# least and greatest value
_RANGES = {
    "SOLVER.IMS_PER_BATCH": (1, None),
    "TUNING.MINI_MASK": (0, None),
    "TUNING.SCHEDULE_ITERS": (0, None),
    "TUNING.MEMORY_GB": (0, None),
    "TUNING.CROP.PROB": (0, 1),
    "TUNING.CROP.SHARE": (0, 0.5),
    **{f"TUNING.VAL.{key}": (0, None) for key in ("IMAGES", "PERIOD", "PATIENCE", "MIN_DELTA", "LIMIT")},
    **{f"TUNING.LR_RANGE.{key}": (0, None) for key in ("LOW", "HIGH")},
}


def add_tuning_config(cfg: CN) -> None:
    """Add the node `TUNING`, all of it switched off. Call it after `gan_plugin.add_gan_config`."""
    cfg.TUNING = CN()
    # folder with the parts of the study's data, <part>.json each; "" for registered data sets only
    cfg.TUNING.DATA = ""
    # parts of the network whose weights stay: any of "backbone", "fpn", "rpn", "box_head", "mask_head"
    cfg.TUNING.FREEZE = ()
    # side of the square that every training mask is squeezed through, 56 in the slides; 0 keeps full masks
    cfg.TUNING.MINI_MASK = 0
    # data sets on which the best weights (TEST.BEST_METRIC), or else the last ones, are evaluated after training
    cfg.TUNING.TEST = ()
    # iterations that the learning rate's schedule is laid out for; 0 for SOLVER.MAX_ITER
    cfg.TUNING.SCHEDULE_ITERS = 0
    # class names of the initial weights, whose heads keep what both have in common: "coco", or names with commas
    cfg.TUNING.SOURCE_CLASSES = ""
    # memory in GiB that a trial may use, of the GPU if there is one; 0 for no limit
    cfg.TUNING.MEMORY_GB = 0.0

    cfg.TUNING.CROP = CN()
    # probability of a crop
    cfg.TUNING.CROP.PROB = 0.0
    # the greatest share of the width or height that is cut off on each side; below 0.5 the centre always stays
    cfg.TUNING.CROP.SHARE = 0.2
    # cut the same share off the width as off the height, so that nothing is distorted (the slides' crop does distort)
    cfg.TUNING.CROP.KEEP_ASPECT = False

    cfg.TUNING.VAL = CN()
    # data sets whose loss is measured; () for none
    cfg.TUNING.VAL.DATASETS = ()
    # images of them, spread evenly; 0 for all
    cfg.TUNING.VAL.IMAGES = 0
    # iterations between two measurements; there is always one at the end
    cfg.TUNING.VAL.PERIOD = 0
    # the loss that patience looks at: "total", or one of those that it is the sum of, such as "loss_mask"
    cfg.TUNING.VAL.LOSS = "total"
    # a total above this is that of a model whose training has diverged; 0 for no limit
    cfg.TUNING.VAL.LIMIT = 1000.0
    # measurements without a better one after which training ends; 0 for never
    cfg.TUNING.VAL.PATIENCE = 0
    # a measurement is better if it is lower by more than this
    cfg.TUNING.VAL.MIN_DELTA = 0.0

    cfg.TUNING.LR_RANGE = CN()
    # the learning rate rises exponentially from LOW to HIGH over the run; LOW 0 for the usual schedule
    cfg.TUNING.LR_RANGE.LOW = 0.0
    cfg.TUNING.LR_RANGE.HIGH = 0.0


def check_tuning(cfg: CN) -> None:
    """Refuse values out of range.

    Raises:
        UserError: the sentence begins with the key, and says what it may be.
    """
    for key, (least, most) in _RANGES.items():
        value = look_up(cfg, key)
        if value < least or (most is not None and value > most):
            expected = f"{least} or more" if most is None else f"a number from {least} to {most}"
            raise UserError(f"{key} is {value!r}; set it to {expected}.")
    for key in ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN"):
        value = look_up(cfg, key)
        if min(value if isinstance(value, list | tuple) else (value,), default=0) <= 0:
            raise UserError(f"{key} is {value!r}; set it to more than 0 pixels.")
    if unknown := [part for part in cfg.TUNING.FREEZE if part not in FREEZABLE]:
        raise UserError(f"TUNING.FREEZE holds {unknown[0]!r}, which is unknown; choose from {', '.join(FREEZABLE)}.")
