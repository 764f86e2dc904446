"""Every config key of a training with its default, one comment and its rule; no other place knows them.

Keys that mean the same as in gan_plugin have its names.
"""

from fvcore.common.config import CfgNode as CN

from car_gan.pictures import GREEN
from gan_plugin.engine.setup import merge_options
from gan_plugin.errors import UserError
from gan_plugin.modeling.timm_weights import FEATURES
from gan_plugin.rules import (
    AMOUNT,
    BELOW_1,
    BETAS,
    FREE,
    INTERVAL,
    POSITIVE,
    PROBABILITY,
    SWITCH,
    Keys,
    check_keys,
    defaults_of,
    number,
    one_of,
    rules_of,
    whole,
)

_MODEL = {
    "DEVICE": ("cuda", FREE),
    # weights to start from
    "WEIGHTS": ("", FREE),
    # "normal" (N(0, 0.02)), "orthogonal" or "xavier" (uniform)
    "INIT": ("normal", one_of("normal", "orthogonal", "xavier")),
    # spectral normalisation of the self-attention modules of both networks
    "ATTENTION_SPECTRAL_NORM": (False, SWITCH),
    "LATENT": {
        "SIZE": (100, whole(1)),
        # "normal", or "uniform" in [-1, 1] as in the LOGAN paper
        "DISTRIBUTION": ("normal", one_of("normal", "uniform")),
    },
    # what both players are told of a car: "" nothing, "colour" the main one inside its mask, or a field of the
    # manifest, such as "label", the class. The training fills in the names and their shares of the crops.
    "LABEL": {"KIND": ("", FREE), "NAMES": ((), FREE), "SHARES": ((), FREE)},
    "GENERATOR": {
        "NAME": ("DCGANGenerator", FREE),
        # channels before the last layer
        "WIDTH": (64, whole(1)),
        # DCGAN: channels of all layers but the last, in place of WIDTH
        "CHANNELS": ((), FREE),
        # DCGAN: side of the first feature map, 4 or 2
        "FIRST_SIDE": (4, one_of(2, 4)),
        # DCGAN: whether the last layer doubles the side ("up") or keeps it ("flat")
        "LAST": ("up", one_of("up", "flat")),
        # ResNet: blocks of the four stages in ResNet's order
        "BLOCKS": ((2, 2, 2, 2), FREE),
        # ResNet: "transposed" convolutions, or "resize" and a convolution, which leaves no checkerboard
        "UPSAMPLE": ("transposed", one_of("transposed", "resize")),
        # of leaky ReLU; 0 for ReLU
        "SLOPE": (0.0, AMOUNT),
        # sides of the feature maps that a self-attention follows
        "ATTENTION": ((), FREE),
        "SPECTRAL_NORM": (False, SWITCH),
        # feed z into every normalisation
        "SKIP_Z": (False, SWITCH),
    },
    "DISCRIMINATOR": {
        "NAME": ("DCGANDiscriminator", FREE),
        "WIDTH": (64, whole(1)),
        "CHANNELS": ((), FREE),
        # DCGAN: batch normalisation; R1 and DiffAugment do better without
        "NORM": (True, SWITCH),
        "BLOCKS": ((2, 2, 2, 2), FREE),
        "ATTENTION": ((), FREE),
    },
    "GAN": {
        # NonSaturatingBCE, Minimax, LeastSquares, LSGAN, Hinge, Wasserstein or RelativisticAverage
        "OBJECTIVE": ("NonSaturatingBCE", FREE),
        # augmentation of all that the discriminator sees: some of "colour,translation,cutout,flip"; "" for none
        "DIFFAUG": ("", FREE),
        # standard deviation of Gaussian noise on all that the discriminator sees
        "INSTANCE_NOISE": (0.0, AMOUNT),
        # the discriminator's targets are drawn uniformly from these ranges
        "LABELS": {
            "REAL": ((1.0, 1.0), INTERVAL),
            "FAKE": ((0.0, 0.0), INTERVAL),
            "FLIP_PROB": (0.0, PROBABILITY),
        },
        "REG": {
            # gamma of R1; 0 for none
            "R1_GAMMA": (0.0, AMOUNT),
            # weight of WGAN-GP's gradient penalty; 0 for none
            "GP_WEIGHT": (0.0, AMOUNT),
            # both act every so many iterations, with so many times their weight
            "EVERY": (16, whole(1)),
            # spectral normalisation of every weight of the discriminator
            "SPECTRAL_NORM": (False, SWITCH),
        },
        # decay of the generator's moving average; 0 keeps none
        "EMA": {"DECAY": (0.0, BELOW_1)},
    },
    # orthogonal regularisation of both networks: its weight (BigGAN's is 1e-4; 0 for none) and its form: "full"
    # (Brock et al. 2016) or "off_diagonal" (BigGAN)
    "ORTHOGONAL": {"WEIGHT": (0.0, AMOUNT), "FORM": ("off_diagonal", one_of("full", "off_diagonal"))},
    # latent optimisation (LOGAN): alpha and beta of dz = alpha / (beta + |g|^2) g; the bounds of z + dz, 0 for none;
    # the share of z's entries that move; the weight of |dz|^2 in the generator's loss. The document gives no number.
    "LOGAN": {
        "ENABLED": (False, SWITCH),
        "ALPHA": (0.9, AMOUNT),
        "BETA": (5.0, POSITIVE),
        "CLIP": (0.0, AMOUNT),
        "SHARE": (1.0, number(lambda value: 0 < value <= 1, "a share above 0, at most 1")),
        "PENALTY": (0.0, AMOUNT),
    },
    # an encoder trained jointly with the generator (LOGAN-B): weights of |E(G(z)) - z|^2, of |G(E(x)) - x| and of the
    # adversarial loss of G(E(x)). The source document gives no number.
    "ENCODER": {
        "ENABLED": (False, SWITCH),
        "WIDTH": (64, whole(1)),
        "LATENT_WEIGHT": (1.0, AMOUNT),
        "IMAGE_WEIGHT": (1.0, AMOUNT),
        "ADVERSARIAL_WEIGHT": (1.0, AMOUNT),
    },
}

_SOLVER = {
    # crops of a batch over all processes
    "IMS_PER_BATCH": (256, whole(1)),
    # batches of a step: 512 crops on a small card are 128 and 4
    "ACCUMULATE": (1, whole(1)),
    "MAX_EPOCHS": (3500, whole(1)),
    # iterations in place of epochs; 0 for epochs
    "MAX_ITER": (0, whole(0)),
    # Adam for both players; the generator's:
    "BASE_LR": (1e-4, AMOUNT),
    "BETAS": ((0.5, 0.999), BETAS),
    "WEIGHT_DECAY": (1e-3, AMOUNT),
    # "alternating": the generator learns against the discriminator that has just moved; "simultaneous": both learn from
    # the same weights, as in LOGAN's algorithm 1, where one optimisation of the latents serves both
    "ORDER": ("alternating", one_of("alternating", "simultaneous")),
    # the discriminator's, and its steps for each of the generator's
    "DISC": {
        "BASE_LR": (1e-4, AMOUNT),
        "BETAS": ((0.5, 0.999), BETAS),
        "WEIGHT_DECAY": (1e-3, AMOUNT),
        "STEPS": (1, whole(1)),
    },
    # "constant", or "linear" down to 0 over the second half
    "SCHEDULE": ("constant", one_of("constant", "linear")),
    # of both players: the norm of all gradients ("norm") or each entry ("value")
    "CLIP_GRADIENTS": {
        "ENABLED": (False, SWITCH),
        "CLIP_TYPE": ("norm", one_of("norm", "value")),
        "CLIP_VALUE": (1.0, POSITIVE),
    },
    "AMP": {"ENABLED": (False, SWITCH)},
    # epochs between checkpoints, and how many of the last are kept; the best in FID and in IS stay besides
    "CHECKPOINT_EPOCHS": (50, whole(1)),
    "KEEP": (3, whole(0)),
}

KEYS: Keys = {
    "OUTPUT_DIR": ("output/cars", FREE),
    # of weights, latents and the order of the crops
    "SEED": (0, FREE),
    # epochs between grids of samples of the same latents; 0 for none
    "VIS_EPOCHS": (10, whole(0)),
    "INPUT": {
        # side of the images in pixels, a power of two
        "SIZE": (64, whole(1)),
        # 3 (RGB on the key colour) or 4 (RGBA, which gives the generated cars their masks)
        "CHANNELS": (3, one_of(3, 4)),
        # mirror half of the crops
        "FLIP": (False, SWITCH),
    },
    "DATASETS": {
        # a folder that `cars.py build` wrote, or any folder of pictures
        "CROPS": ("", FREE),
        # the key colour that the crops of a folder without a manifest lie on; a build says its own
        "KEY": (GREEN, FREE),
        # share of the source images that are not trained on, for the check for memorised crops
        "HELD_OUT": (0.1, BELOW_1),
        "SPLIT_SEED": (0, FREE),
    },
    "DATALOADER": {"NUM_WORKERS": (0, whole(0))},
    "MODEL": _MODEL,
    "SOLVER": _SOLVER,
    "TEST": {
        # epochs between scores (FID, IS, ...); 0 for scores at the end only
        "EVAL_EPOCHS": (50, whole(0)),
        # generated images a score is computed from, and the most real ones
        "SAMPLES": (10000, whole(1)),
        # torch-fidelity's file of Inception weights; "" for FEATURES, which compare with nothing else
        "INCEPTION": ("", FREE),
        # "lite0" (EfficientNet-Lite0, ImageNet), "random" (fixed convolutions), or "auto": lite0 where it is installed
        "FEATURES": ("auto", one_of(*FEATURES)),
        # evaluate and compare score the cars a second time, keyed and put on this ground, since the flat key colour
        # distorts FID and IS: "grey", or a folder of pictures; "" for no second scores
        "BACKGROUND": ("grey", FREE),
        # of the latents of the scores
        "SEED": (1, FREE),
        "BATCH": (128, whole(1)),
    },
}


def default_config() -> CN:
    """The source document's baseline, DCGAN, with nothing switched on."""
    return CN(defaults_of(KEYS))


def load_config(config_file: str, opts: list[str]) -> CN:
    """The defaults, then a YAML file with its _BASE_, then KEY VALUE pairs; frozen.

    Raises:
        UserError: the file is missing or no YAML, or a key or a value does not exist or is out of range.
    """
    import torch

    cfg = default_config()
    merge_options(cfg, config_file, opts)
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    check_config(cfg)
    cfg.freeze()
    return cfg


def check_config(cfg: CN) -> None:
    """Raise a UserError that names the first key whose value is out of range, and the range."""
    check_keys(cfg, rules_of(KEYS))
    if cfg.MODEL.LABEL.KIND and cfg.MODEL.ENCODER.ENABLED:
        raise UserError("MODEL.ENCODER knows no labels; set MODEL.LABEL.KIND to '' or MODEL.ENCODER.ENABLED to False.")
