"""Config keys of a trial, beside Detectron2's and gan_plugin's, with defaults and rules; no other place knows them."""

from detectron2.config import CfgNode as CN

from gan_plugin.rules import (
    FREE,
    LIMIT,
    SHARE,
    SWITCH,
    Keys,
    Rule,
    between,
    check_keys,
    check_name,
    fill,
    rules_of,
    whole,
)

FREEZABLE = {
    "backbone": ("backbone.bottom_up.",),
    "fpn": ("backbone.fpn_",),
    "rpn": ("proposal_generator.",),
    "box_head": ("roi_heads.box_head.", "roi_heads.box_predictor."),
    "mask_head": ("roi_heads.mask_head.",),
}
# the sizes of one picture, or of several
_SIDES = Rule(
    lambda value: min(value if isinstance(value, list | tuple) else (value,), default=0) > 0, "more than 0 pixels"
)

KEYS: Keys = {
    "TUNING": {
        # folder with the parts of the study's data, <part>.json each; "" for registered data sets only
        "DATA": ("", FREE),
        # parts of the network whose weights stay: any of "backbone", "fpn", "rpn", "box_head", "mask_head"
        "FREEZE": ((), FREE),
        # side of the square that every training mask is squeezed through, 56 in the slides; 0 keeps full masks
        "MINI_MASK": (0, whole(0)),
        # data sets on which the best weights (TEST.BEST_METRIC), or else the last ones, are evaluated after training
        "TEST": ((), FREE),
        # iterations that the learning rate's schedule is laid out for; 0 for SOLVER.MAX_ITER
        "SCHEDULE_ITERS": (0, whole(0)),
        # class names of the initial weights, whose heads keep what both have in common: "coco", or names with commas
        "SOURCE_CLASSES": ("", FREE),
        # memory in GiB that a trial may use, of the GPU if there is one; 0 for no limit
        "MEMORY_GB": (0.0, LIMIT),
        "CROP": {
            # probability of a crop
            "PROB": (0.0, SHARE),
            # the greatest share of the width or height that is cut off on each side; below 0.5 the centre always stays
            "SHARE": (0.2, between(0, 0.5)),
            # cut the same share off the width as off the height, so that nothing is distorted (the slides' crop does
            # distort)
            "KEEP_ASPECT": (False, SWITCH),
        },
        "VAL": {
            # data sets whose loss is measured; () for none
            "DATASETS": ((), FREE),
            # images of them, spread evenly; 0 for all
            "IMAGES": (0, whole(0)),
            # iterations between two measurements; there is always one at the end
            "PERIOD": (0, whole(0)),
            # the loss that patience looks at: "total", or one of those that it is the sum of, such as "loss_mask"
            "LOSS": ("total", FREE),
            # a total above this is that of a model whose training has diverged; 0 for no limit
            "LIMIT": (1000.0, LIMIT),
            # measurements without a better one after which training ends; 0 for never
            "PATIENCE": (0, whole(0)),
            # a measurement is better if it is lower by more than this
            "MIN_DELTA": (0.0, LIMIT),
        },
        "LR_RANGE": {
            # the learning rate rises exponentially from LOW to HIGH over the run; LOW 0 for the usual schedule
            "LOW": (0.0, LIMIT),
            "HIGH": (0.0, LIMIT),
        },
    }
}
RULES = rules_of(KEYS) | {
    "SOLVER.IMS_PER_BATCH": whole(1),
    "INPUT.MIN_SIZE_TRAIN": _SIDES,
    "INPUT.MAX_SIZE_TRAIN": _SIDES,
}


def add_tuning_config(cfg: CN) -> None:
    """Add the node `TUNING`, all of it switched off. Call it after `gan_plugin.add_gan_config`."""
    fill(cfg, KEYS)


def check_tuning(cfg: CN) -> None:
    """Refuse values out of range.

    Raises:
        UserError: the sentence begins with the key, and says what it may be.
    """
    check_keys(cfg, RULES)
    for part in cfg.TUNING.FREEZE:
        check_name("TUNING.FREEZE", part, FREEZABLE)
