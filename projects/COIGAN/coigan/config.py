"""Every config key with its default, one comment and its rule; no other place knows them.

The defaults are COIGAN's own (thesis 4.4; its code's first release). configs/ has the other presets.
"""

from typing import Any

from detectron2.config import CfgNode as CN
from yacs.config import CfgNode

from gan_plugin.engine.setup import merge_options
from gan_plugin.errors import UserError
from gan_plugin.modeling.timm_weights import FEATURES
from gan_plugin.rules import (
    AMOUNT,
    BELOW_1,
    BETAS,
    FREE,
    SHARE,
    SWITCH,
    Keys,
    Rule,
    check_keys,
    defaults_of,
    one_of,
    rules_of,
    series,
    whole,
)

_NORM = one_of("BN", "GN", "SyncBN")
# of gan_plugin's; colours are for single images, not for a canvas of each class
_AUGMENTS = ("translation", "cutout", "flip")


def _names_in(policy: str) -> set[str]:
    return {name.strip() for name in policy.split(",") if name.strip()}


def _weighted(weight: float, **more: Any) -> Keys:
    return {
        # 0 switches a loss off
        "WEIGHT": (weight, AMOUNT),
        # () keeps the weight; (last weight, iterations) goes there in a straight line
        "SCHEDULE": ((), FREE),
        **more,
    }


_DATA = {
    # folder of the prepared data set
    "ROOT": ("", FREE),
    # probabilities of 0, 1, 2, ... objects of a class in a sample; or a row of them for each class: rare classes come
    # as often as their row says, however few objects they have
    "COUNTS": ((0.4, 0.475, 0.1, 0.025), FREE),
    # "retry": a sample without objects tries further ones; "last_class", COIGAN's own rule: there the last class of the
    # sample's random order places one, which may still fail; "" for neither
    "FORCE_NON_EMPTY": ("retry", one_of("retry", "last_class", "")),
    # turn, scale and shear the objects
    "AUGMENT": (True, SWITCH),
    # a preset of coigan.data.placer in place of that, such as inpainting or defects; "" for none
    "PRESET": ("", FREE),
    # objects may lie on one another
    "OVERLAP": (False, SWITCH),
    # ask the generator for other masks than those of the real defects that the discriminator sees
    "DIFFERENT_SHAPES": (False, SWITCH),
    # where those other masks come from: "dataset", or "generated" (banks of shapes-train, a folder for each class)
    "SHAPE_SOURCE": ("dataset", one_of("dataset", "generated")),
    "SHAPE_BANKS": ((), FREE),
    # black the base image out under the masks
    "MASK_BASE": (False, SWITCH),
    # axes along which base and reference tiles are mirrored half of the time: "both", "horizontal", "vertical" or ""
    "FLIP": ("both", one_of("both", "horizontal", "vertical", "")),
}

_GENERATOR = {
    # LamaFourier, Pix2PixHD, MultiDilated, Pix2PixUNet, or StyleFFCUNet (the thesis' future work)
    "NAME": ("LamaFourier", FREE),
    # channels of the first layer, doubled by each of DOWNS steps up to MAX_CHANNELS
    "WIDTH": (64, FREE),
    "DOWNS": (3, FREE),
    "MAX_CHANNELS": (1024, FREE),
    # residual blocks; LaMa's paper has 9
    "BLOCKS": (8, FREE),
    # LamaFourier and StyleFFCUNet: share of channels that see the whole image
    "GLOBAL_RATIO": (0.75, SHARE),
    # LamaFourier: "sum" as in LaMa's code, "concat" as in the thesis' table 2.1
    "SPECTRAL": ("sum", one_of("sum", "concat")),
    # LamaFourier, Pix2PixHD, MultiDilated: "transposed" convolutions as in LaMa, or "resize" and convolve
    "UPSAMPLE": ("transposed", one_of("transposed", "resize")),
    # "BN", "GN", or "SyncBN" over all processes
    "NORM": ("SyncBN", _NORM),
    # Pix2PixUNet: the paper's noise
    "DROPOUT": (0.5, SHARE),
    # StyleFFCUNet: latent and style, and layers between them
    "STYLE_SIZE": (512, FREE),
    "MAPPING_LAYERS": (8, FREE),
    # result = base image outside of the masks, dilated by so many pixels; -1 takes the generator's pixels everywhere
    "BLEND_MARGIN": (-1, FREE),
}

_DISCRIMINATOR = {
    # WaveletDiscriminator (one verdict an image) or PatchDiscriminator (a map of verdicts)
    "NAME": ("WaveletDiscriminator", FREE),
    # channels: at sides up to 32 for the first, 512 in the paper; of the first layer for the second, 64 in the paper
    "WIDTH": (512, FREE),
    # WaveletDiscriminator: widens sides above 32
    "CHANNEL_MULTIPLIER": (3, FREE),
    "STDDEV_GROUP": (4, FREE),
    # stretches what it looks at around the mean grey of each canvas, for faint textures; 1 as in the thesis. R1 grows
    # with its square
    "CONTRAST": (1.0, FREE),
    # PatchDiscriminator
    "PATCH_LAYERS": (4, FREE),
    "NORM": ("SyncBN", _NORM),
}

_LOSS = {
    # one of gan_plugin's objectives of logits: NonSaturatingBCE is the thesis' softplus
    "OBJECTIVE": ("NonSaturatingBCE", FREE),
    # with a PatchDiscriminator: only patches that touch a mask are fake to the reference discriminator (LaMa)
    "MASKED_PATCHES": (False, SWITCH),
    # augmentation of what the discriminators see: some of "translation,cutout,flip"; "" for none
    "DIFFAUG": (
        "",
        Rule(lambda value: _names_in(value) <= {*_AUGMENTS}, f"some of {','.join(_AUGMENTS)}, or to ''"),
    ),
    # DIFFAUG as often as overfitting asks for (ADA): target of E[sign(D(real))], 0.6 in the paper, 0 for always; and
    # the real images in which the probability could rise from 0 to 1
    "ADA": {"TARGET": (0.0, SHARE), "IMAGES": (500000, whole(1))},
    # the generator's
    "ADVERSARIAL": _weighted(20.0),
    "REF_ADVERSARIAL": _weighted(8.0),
    # smooth masked: weights inside and outside of the masks, side of the square that smooths them
    "L1_SMOOTH": _weighted(5.0, INSIDE=(0.1, AMOUNT), OUTSIDE=(1.0, AMOUNT), KERNEL=(31, whole(0))),
    "PERCEPTUAL_SMOOTH": _weighted(0.3, INSIDE=(0.1, AMOUNT), OUTSIDE=(1.0, AMOUNT), KERNEL=(31, whole(0))),
    # plain
    "L1": _weighted(0.0),
    "MSE": _weighted(0.0),
    # "mean" or "sum", of L1 and MSE
    "REDUCTION": ("mean", one_of("mean", "sum")),
    # MEAN divides by the number of layers (thesis equation 2.15)
    "PERCEPTUAL": _weighted(0.0, MEAN=(False, SWITCH)),
    # on the features of the reference discriminator: absolute, and squared differences (LaMa's DiscPL)
    "FEATURE_MATCHING": _weighted(0.0),
    "DISC_PERCEPTUAL": _weighted(0.0),
    # a step of its own every EVERY turns of the generator, EVERY times as heavy
    "PATH_LENGTH": _weighted(5.0, EVERY=(4, whole(1))),
    # the discriminators'
    "DISCRIMINATOR": _weighted(5.0),
    "REF_DISCRIMINATOR": _weighted(5.0),
    # WEIGHT * E|grad D(real)|^2, without the paper's 1/2, as in COIGAN's code; every EVERY turns of a discriminator
    "R1": _weighted(3.0, EVERY=(16, whole(1))),
    # what the perceptual losses compare: path of a ResNet-50's weights and the begin of their SHA-256; without a path
    # "lite0" (EfficientNet-Lite0, ImageNet), "random" (fixed convolutions), or "auto": lite0 where it is installed
    "FEATURES": {"WEIGHTS": ("", FREE), "SHA256": ("", FREE), "NETWORK": ("auto", one_of(*FEATURES))},
}

_SOLVER = {
    # an iteration is a turn of the discriminators or of the generator, on a batch of its own
    "MAX_ITER": (800000, whole(1)),
    # images over all processes
    "IMS_PER_BATCH": (8, whole(1)),
    "NUM_WORKERS": (6, whole(0)),
    # turns of the discriminators, then of the generator, and so on
    "DISC_STEPS": (1, whole(1)),
    "GEN_STEPS": (1, whole(1)),
    # the reference discriminator learns at every so many turns of the discriminators
    "REF_DISC_STEPS_DELAY": (1, whole(1)),
    # "adamw", "adam", "sgd" or "rmsprop"
    "OPTIMIZER": ("adamw", one_of("adamw", "adam", "sgd", "rmsprop")),
    "LR": (0.002, AMOUNT),
    # of both discriminators; 0 for LR
    "DISC_LR": (0.0, AMOUNT),
    "BETAS": ((0.0, 0.998), BETAS),
    "WEIGHT_DECAY": (0.01, AMOUNT),
    # greatest norm of the generator's gradients, 0 for no clipping
    "CLIP_NORM": (0.0, AMOUNT),
    "AMP": (False, SWITCH),
    # decay of the generator's moving average, 0 for none
    "EMA_DECAY": (0.999, BELOW_1),
    "CHECKPOINT_PERIOD": (10000, whole(1)),
    # how many of the last checkpoints are kept, 0 for all
    "KEEP": (0, whole(0)),
    # iterations between pictures (base, masks, result), and between lines of the log
    "SAMPLE_PERIOD": (500, whole(0)),
    "WRITE_PERIOD": (20, whole(1)),
    # the pictures also show the masks with their noise, and painted and real defects on black
    "SAMPLE_DETAILS": (False, SWITCH),
    # iterations between histograms of weights and gradients in TensorBoard, 0 for none
    "HISTOGRAM_PERIOD": (0, whole(0)),
}

# what shapes-train reads
_SHAPES = {
    # SWAGAN's latent, mapping layers and channels
    "STYLE_SIZE": (512, FREE),
    "MAPPING_LAYERS": (8, FREE),
    "WIDTH": (512, FREE),
    "CHANNEL_MULTIPLIER": (2, FREE),
    # "masks" learns the masks of one class, "base" the base tiles
    "SOURCE": ("masks", FREE),
    # the index of the class whose masks are learnt, and how many of them a tile holds
    "CLASS": (0, FREE),
    "COUNTS": ((1, 3), FREE),
    "MAX_ITER": (800000, whole(0)),
    "IMS_PER_BATCH": (32, whole(1)),
    # Adam; rate and betas are corrected for the lazy regularisers (Karras et al. 2020, appendix B)
    "LR": (0.002, AMOUNT),
    "BETAS": ((0.0, 0.99), BETAS),
    # probability of two latents in one image
    "MIXING": (0.9, SHARE),
    # gamma of R1, with the paper's 1/2
    "R1": (10.0, AMOUNT),
    "R1_EVERY": (16, whole(1)),
    "PATH_LENGTH": (2.0, AMOUNT),
    "PATH_EVERY": (4, whole(1)),
    # the path length takes this part of a batch
    "BATCH_SHRINK": (2, whole(1)),
    "EMA_DECAY": (0.5 ** (32 / 10000), BELOW_1),
}

KEYS: Keys = {
    "VERSION": (2, FREE),
    "OUTPUT_DIR": ("output/coigan", FREE),
    "SEED": (42, FREE),
    # "inpainting", or "shapes" for the generator of masks (shapes-train sets it)
    "GAME": ("inpainting", FREE),
    # "cuda", "cpu", or "" for a GPU where there is one
    "DEVICE": ("", FREE),
    "INPUT": {
        # side of the square tiles in pixels
        "SIZE": (256, whole(1)),
        # names of the mask channels; training takes them from its data
        "CLASSES": ((), FREE),
        "NOISE": {
            # the noise in masks: normal of MEAN and STD; "additive", "multiplicative" or "replace"
            "MEAN": (0.5, FREE),
            "STD": (0.08, AMOUNT),
            "STRATEGY": ("replace", one_of("additive", "multiplicative", "replace")),
            # noises drawn at 1/s of the size and enlarged, whose sum it is; () for one at full size
            "SCALES": ((), series(whole(1), lambda scales: True, "whole numbers, 1 or more")),
            # side of the Gaussian kernel that softens the masks; 0 for none
            "SMOOTH": (41, whole(0)),
        },
    },
    "DATA": _DATA,
    "MODEL": {
        "GENERATOR": _GENERATOR,
        "DISCRIMINATOR": _DISCRIMINATOR,
        # whether whole images are judged as well
        "REF_DISCRIMINATOR": {**_DISCRIMINATOR, "ENABLED": (True, SWITCH)},
    },
    "LOSS": _LOSS,
    "SOLVER": _SOLVER,
    "TEST": {
        # iterations between scores on the way, each of which may give model_best_crop_fid.pth (crops of objects) and
        # model_best_fid.pth (whole pictures); 0 for none
        "EVAL_PERIOD": (0, whole(0)),
        # generated images, and at most so many real ones, of a FID, and as many crops; the source takes 40000
        "IMAGES": (2000, whole(1)),
        # path of torch-fidelity's Inception weights; "" for FEATURES, whose numbers compare among themselves only
        "INCEPTION": ("", FREE),
        # "lite0" (EfficientNet-Lite0, ImageNet), "random" (fixed convolutions), or "auto": lite0 where it is installed
        "FEATURES": ("auto", one_of(*FEATURES)),
        "BATCH": (8, whole(1)),
    },
    "SHAPES": _SHAPES,
}
RULES = rules_of(KEYS)


def get_cfg() -> CN:
    """The defaults."""
    return CN(defaults_of(KEYS))


def check_value(key: str, value: Any) -> Any:
    """Return `value` if the rule of `key` allows it, or raise a UserError that names the key."""
    return RULES[key].check(key, value)


def check_config(cfg: CfgNode) -> None:
    """Raise a UserError for a value out of range or values that cannot work together, before anything is loaded."""
    check_keys(cfg, RULES)
    if not cfg.MODEL.REF_DISCRIMINATOR.ENABLED:
        for name in ("FEATURE_MATCHING", "DISC_PERCEPTUAL"):
            if cfg.LOSS[name].WEIGHT > 0:
                raise UserError(f"LOSS.{name} needs MODEL.REF_DISCRIMINATOR.ENABLED True.")
    if cfg.LOSS.MASKED_PATCHES:
        if cfg.MODEL.REF_DISCRIMINATOR.NAME != "PatchDiscriminator":
            raise UserError("LOSS.MASKED_PATCHES needs MODEL.REF_DISCRIMINATOR.NAME PatchDiscriminator.")
        # they would move the patches away from the masks
        if _names_in(cfg.LOSS.DIFFAUG) - {"cutout"}:
            raise UserError(
                f"LOSS.MASKED_PATCHES is for images that stay where their masks are, but LOSS.DIFFAUG is "
                f"{cfg.LOSS.DIFFAUG!r}; set it to cutout or '', or LOSS.MASKED_PATCHES to False."
            )


def load_config(path: str = "", options: list[str] | None = None) -> CN:
    """The defaults, changed by a YAML file and then by KEY VALUE pairs.

    Args:
        path: of a YAML file, which may name another as `_BASE_`; "" for none.
        options: keys and values in turn.

    Raises:
        UserError: the file is missing or wrong, a key is unknown or has a value of another type or out of range, or
            values cannot work together.
    """
    cfg = get_cfg()
    merge_options(cfg, path, list(options or []))
    check_config(cfg)
    cfg.freeze()
    return cfg
