"""The arms of a comparison: what each changes in the config that all of them share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from detectron2.config import CfgNode

from gan_plugin.engine.export import STOCK_ROI_HEADS
from gan_plugin.errors import UserError


def scaled_schedule(cfg: CfgNode, iterations: int) -> dict[str, Any]:
    """The keys that count iterations, each the same share of `iterations` as it was of SOLVER.MAX_ITER.

    Steps that would fall on the start, the end or one another are left out. Nothing is evaluated on the way and no
    checkpoint is chosen by its score: the held-out images must not take part in the training.
    """
    share = iterations / cfg.SOLVER.MAX_ITER
    steps = {round(step * share) for step in cfg.SOLVER.STEPS}
    return {
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.STEPS": sorted(step for step in steps if 0 < step < iterations),
        "SOLVER.WARMUP_ITERS": round(cfg.SOLVER.WARMUP_ITERS * share),
        "SOLVER.CHECKPOINT_PERIOD": max(1, round(cfg.SOLVER.CHECKPOINT_PERIOD * share)),
        "MODEL.GAN.START_ITER": round(cfg.MODEL.GAN.START_ITER * share),
        "MODEL.GAN.WARMUP_ITERS": round(cfg.MODEL.GAN.WARMUP_ITERS * share),
        "TEST.EVAL_PERIOD": 0,
        "TEST.BEST_METRIC": "",
    }


BASELINE = "baseline"
# "lsgan-frozen" is "lsgan" with a discriminator that never learns
FROZEN = "-frozen"
# "boxinst-lsgan" is "lsgan" with the losses of "boxinst" beside it
BESIDE = "boxinst-"
Settings = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """What a reader is told about the arm, its config keys, and those that depend on the shared config."""

    description: str
    settings: Settings
    adapted: Callable[[CfgNode], Settings] = field(default=lambda cfg: {})
    # its iterations, as many times those of the others
    stretch: float = 1.0
    # whether it is what an adversary has to beat, and none itself
    control: bool = False


def _paper_system(cfg: CfgNode) -> Settings:
    """The paper's discriminators as wide as the config's own one is, and its optimizer where the generator's is SGD."""
    gan, share = cfg.MODEL.GAN, min(1.0, cfg.MODEL.GAN.MASK.CHANNELS[0] / 64)
    heads = cfg.MODEL.ROI_HEADS.NAME
    settings: Settings = {
        "MODEL.GAN.MASK.CHANNELS": [max(1, int(width * share)) for width in (64, 128, 256, 512, 1024)],
        "MODEL.GAN.BOX.CHANNELS": [max(1, int(width * share)) for width in (64, 128, 256, 512)],
        "MODEL.GAN.BOX.NORM": gan.MASK.NORM,
        "MODEL.ROI_HEADS.NAME": {stock: ours for ours, stock in STOCK_ROI_HEADS.items()}.get(heads, heads),
    }
    if cfg.SOLVER.OPTIMIZER.lower() == "sgd":
        settings |= {
            "SOLVER.DISC.OPTIMIZER": "sgd",
            "SOLVER.DISC.BASE_LR": cfg.SOLVER.BASE_LR / 5,
            "SOLVER.DISC.MOMENTUM": 0.9,
            "SOLVER.DISC.WEIGHT_DECAY": 0.0001,
            "SOLVER.DISC.SCHEDULE": "follow",
        }
    return settings


_MASK_PLAYER: Settings = {"MODEL.GAN.ENABLED": True, "MODEL.GAN.MASK.ENABLED": True, "MODEL.GAN.BOX.ENABLED": False}
_CROP: Settings = {
    **_MASK_PLAYER,
    "MODEL.GAN.MASK.DISCRIMINATOR": "MaskedImageDiscriminator",
    "MODEL.GAN.MASK.OBJECTIVE": "Hinge",
    "MODEL.GAN.MASK.REC_WEIGHT": 0.0,
    "MODEL.GAN.MASK.INPUT_SIZE": 56,
    "MODEL.GAN.MASK.CHANNELS": [32, 64, 128],
}
_BOXINST: Settings = {"MODEL.GAN.UNPAIRED.PROJECTION_WEIGHT": 1.0, "MODEL.GAN.UNPAIRED.PAIRWISE_WEIGHT": 1.0}

ARMS: dict[str, Arm] = {
    BASELINE: Arm(
        "no adversary: the plain model, trained on as long as the others", {"MODEL.GAN.ENABLED": False}, control=True
    ),
    "bce": Arm(
        "binary cross entropy (thesis eq 4.2 and 4.4) with the config's own mask discriminator and weights",
        {**_MASK_PLAYER, "MODEL.GAN.MASK.OBJECTIVE": "NonSaturatingBCE"},
    ),
    "lsgan": Arm(
        "least squares (thesis eq 4.5 and 4.6) with the config's own mask discriminator and weights",
        {**_MASK_PLAYER, "MODEL.GAN.MASK.OBJECTIVE": "LeastSquares"},
    ),
    "verdict": Arm(
        "least squares without the error, beside which a balanced verdict has next to no part in the gradient",
        {**_MASK_PLAYER, "MODEL.GAN.MASK.OBJECTIVE": "LeastSquares", "MODEL.GAN.MASK.REC_WEIGHT": 0.0},
    ),
    "rec": Arm(
        "a control: the mean absolute error of matched masks (thesis 4.3.3), weighted as in the config, and no verdict",
        {**_MASK_PLAYER, "MODEL.GAN.MASK.WEIGHT": 0.0},
        control=True,
    ),
    "heavier": Arm(
        "a control: the mask loss itself once more, with the share that BALANCE.SHARE gives an adversary, and no "
        "verdict",
        {
            **_MASK_PLAYER,
            "MODEL.GAN.MASK.WEIGHT": 0.0,
            "MODEL.GAN.MASK.REC_WEIGHT": 1.0,
            "MODEL.GAN.MASK.REC_LOSS": "bce",
            "MODEL.GAN.MASK.MATCHING": "proposal",
        },
        control=True,
    ),
    "longer": Arm(
        "a control: the baseline with half as many iterations again, more than any adversary costs",
        {"MODEL.GAN.ENABLED": False},
        stretch=1.5,
        control=True,
    ),
    "hinge": Arm(
        "the config's mask discriminator with the hinge loss",
        {**_MASK_PLAYER, "MODEL.GAN.MASK.OBJECTIVE": "Hinge"},
    ),
    "crop": Arm(
        "a discriminator of the mask and the RGB crop times the mask, 56 pixels wide, with the hinge loss", _CROP
    ),
    "boxinst": Arm(
        "no adversary; objects without a mask learn from their boxes and colours (Tian et al. 2021, arXiv 2012.02310), "
        "for configs with MASK.BOX_ONLY",
        {"MODEL.GAN.ENABLED": False, **_BOXINST},
        control=True,
    ),
    "paper": Arm(
        "discriminators of masked RoI features and of boxes (Le et al. 2020, arXiv 2010.13757) with the released "
        "coefficients, 0.5 and 0.025; as wide as the config's own, and on its schedule",
        {
            "MODEL.GAN.ENABLED": True,
            "MODEL.GAN.ORDER": "paper",
            "MODEL.GAN.MASK.ENABLED": True,
            "MODEL.GAN.MASK.DISCRIMINATOR": "MaskedFeatureDiscriminator",
            "MODEL.GAN.MASK.OBJECTIVE": "MultiLayerL1",
            "MODEL.GAN.MASK.WEIGHT": 0.5,
            "MODEL.GAN.MASK.REC_WEIGHT": 0.0,
            "MODEL.GAN.MASK.INPUT_SIZE": 28,
            "MODEL.GAN.MASK.MATCHING": "proposal",
            "MODEL.GAN.BOX.ENABLED": True,
            "MODEL.GAN.BOX.WEIGHT": 0.025,
            "MODEL.GAN.LABELS.REAL": [1.0, 1.0],
            "MODEL.GAN.LABELS.FAKE": [0.0, 0.0],
            "MODEL.GAN.LABELS.FLIP_PROB": 0.0,
            "MODEL.GAN.BALANCE.SHARE": 0.0,
        },
        _paper_system,
    ),
    "best": Arm(
        "least squares against anti-aliased truth, verdict and error with three tenths of the mask loss' gradient; "
        "the best of a search that had the error beside that share",
        {
            **_MASK_PLAYER,
            "MODEL.GAN.MASK.OBJECTIVE": "LeastSquares",
            "MODEL.GAN.MASK.REAL": "antialiased",
            "MODEL.GAN.BALANCE.SHARE": 0.3,
        },
    ),
    "thesis": Arm(
        "the thesis' discriminator of 11.4 million parameters with its weights as printed, 1 and 100 (Zappia 2021), "
        "for the generator and the schedule of the config; may diverge",
        {
            **_MASK_PLAYER,
            "MODEL.GAN.ORDER": "thesis",
            "MODEL.GAN.MASK.DISCRIMINATOR": "PixelMaskDiscriminator",
            "MODEL.GAN.MASK.OBJECTIVE": "NonSaturatingBCE",
            "MODEL.GAN.MASK.WEIGHT": 1.0,
            "MODEL.GAN.MASK.REC_WEIGHT": 100.0,
            "MODEL.GAN.MASK.INPUT_SIZE": 128,
            "MODEL.GAN.MASK.CHANNELS": [64, 128, 128, 256, 512, 1024],
            "MODEL.GAN.MASK.NORM": "BN",
            "MODEL.GAN.MASK.MATCHING": "greedy",
            "MODEL.GAN.LABELS.REAL": [0.7, 1.2],
            "MODEL.GAN.LABELS.FAKE": [0.0, 0.3],
            "MODEL.GAN.LABELS.FLIP_PROB": 0.05,
            "MODEL.GAN.BALANCE.SHARE": 0.0,
            "SOLVER.DISC.OPTIMIZER": "adam",
            "SOLVER.DISC.BASE_LR": 0.2e-4,
            "SOLVER.DISC.BETAS": [0.5, 0.999],
        },
    ),
}


def find_arm(name: str) -> Arm | None:
    """The arm of that name: a key of ARMS, or that of an adversary with "-frozen" behind it, or either with "boxinst-"
    before it; None for what is none."""
    if name.startswith(BESIDE) and (alone := find_arm(name.removeprefix(BESIDE))) is not None:
        about = f"{alone.description}; with the losses of boxinst beside it"
        return replace(alone, description=about, settings={**alone.settings, **_BOXINST})
    if name in ARMS or not name.endswith(FROZEN):
        return ARMS.get(name)
    learns = name.removesuffix(FROZEN)
    arm = ARMS.get(learns)
    if arm is None or not arm.settings["MODEL.GAN.ENABLED"] or arm.settings.get("MODEL.GAN.MASK.WEIGHT") == 0:
        return None
    frozen: Settings = {"MODEL.GAN.MODE": "alternating", "SOLVER.DISC.BASE_LR": 0.0, "MODEL.GAN.GATE_ACCURACY": 0.0}
    return replace(
        arm,
        description=f"a control: {learns}, whose discriminators keep their first, random weights",
        adapted=lambda cfg: {**arm.adapted(cfg), **frozen},
        control=True,
    )


def controls_of(arm: str, arms: Iterable[str]) -> list[str]:
    """Those of `arms` that an adversary has to beat: all controls, but of the frozen ones only its own."""
    known = find_arm(arm)
    if known is None or known.control:
        return []
    rivals = {name: find_arm(name) for name in arms}
    others = [name for name, each in rivals.items() if each is not None and each.control]
    return [name for name in others if not name.endswith(FROZEN) or name == arm + FROZEN]


def arm_settings(names: Iterable[str], cfg: CfgNode, iterations: int | None = None) -> dict[str, Settings]:
    """Arm -> config keys and values, for `names` without repetitions, the baseline first.

    Args:
        names: keys of ARMS, or of adversaries in them with "-frozen" behind. The baseline is always there, since every
            difference is one to it.
        cfg: the config that all arms share.
        iterations: of each; None leaves the keys out that count iterations, which only some arms have of their own.

    Raises:
        UserError: an arm is unknown; the sentence lists the known ones.
    """
    settings: dict[str, Settings] = {}
    for name in dict.fromkeys([BASELINE, *names]):
        arm = find_arm(name)
        if arm is None:
            raise UserError(
                f"The arm '{name}' is unknown; --arms takes {', '.join(ARMS)}, and any adversary among them with "
                f"{FROZEN} behind its name; any of these with {BESIDE} before it."
            )
        settings[name] = {**arm.settings, **arm.adapted(cfg)}
        if iterations is not None and arm.stretch != 1:
            settings[name] |= scaled_schedule(cfg, round(iterations * arm.stretch))
    return settings
