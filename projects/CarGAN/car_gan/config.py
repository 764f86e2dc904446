"""Every config key of a training with its default and one comment, and which values it may have.

No other place knows a default. Keys that mean the same as in gan_plugin have its names.
"""

import math
from collections.abc import Callable
from typing import Any

from fvcore.common.config import CfgNode as CN

from car_gan.pictures import GREEN
from gan_plugin.config import check_name
from gan_plugin.config_files import look_up
from gan_plugin.engine.setup import merge_options
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


def default_config() -> CN:
    """The source document's baseline, DCGAN, with nothing switched on."""
    cfg = CN()
    cfg.OUTPUT_DIR = "output/cars"
    # of weights, latents and the order of the crops
    cfg.SEED = 0
    # epochs between grids of samples of the same latents; 0 for none
    cfg.VIS_EPOCHS = 10

    cfg.INPUT = CN()
    # side of the images in pixels, a power of two
    cfg.INPUT.SIZE = 64
    # 3 (RGB on the key colour) or 4 (RGBA, which gives the generated cars their masks)
    cfg.INPUT.CHANNELS = 3
    # mirror half of the crops
    cfg.INPUT.FLIP = False

    cfg.DATASETS = CN()
    # a folder that `cars.py build` wrote, or any folder of pictures
    cfg.DATASETS.CROPS = ""
    # the key colour that the crops of a folder without a manifest lie on; a build says its own
    cfg.DATASETS.KEY = GREEN
    # share of the source images that are not trained on, for the check for memorised crops
    cfg.DATASETS.HELD_OUT = 0.1
    cfg.DATASETS.SPLIT_SEED = 0
    cfg.DATALOADER = CN()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL = _model_node()
    cfg.SOLVER = _solver_node()

    cfg.TEST = CN()
    # epochs between scores (FID, IS, ...); 0 for scores at the end only
    cfg.TEST.EVAL_EPOCHS = 50
    # generated images a score is computed from, and the most real ones
    cfg.TEST.SAMPLES = 10000
    # torch-fidelity's file of Inception weights; "" for FEATURES, which compare with nothing else
    cfg.TEST.INCEPTION = ""
    # "lite0" (EfficientNet-Lite0, ImageNet), "random" (fixed convolutions), or "auto": lite0 where it is installed
    cfg.TEST.FEATURES = "auto"
    # evaluate and compare score the cars a second time, keyed and put on this ground, since the flat key colour
    # distorts FID and IS: "grey", or a folder of pictures; "" for no second scores
    cfg.TEST.BACKGROUND = "grey"
    # of the latents of the scores
    cfg.TEST.SEED = 1
    cfg.TEST.BATCH = 128
    return cfg


def _model_node() -> CN:
    model = CN()
    model.DEVICE = "cuda"
    # weights to start from
    model.WEIGHTS = ""
    # "normal" (N(0, 0.02)), "orthogonal" or "xavier" (uniform)
    model.INIT = "normal"
    # spectral normalisation of the self-attention modules of both networks
    model.ATTENTION_SPECTRAL_NORM = False
    model.LATENT = CN()
    model.LATENT.SIZE = 100
    # "normal", or "uniform" in [-1, 1] as in the LOGAN paper
    model.LATENT.DISTRIBUTION = "normal"

    # what both players are told of a car: "" nothing, "colour" the main one inside its mask, or a field of the
    # manifest, such as "label", the class. The training fills in the names and their shares of the crops.
    model.LABEL = CN()
    model.LABEL.KIND = ""
    model.LABEL.NAMES = ()
    model.LABEL.SHARES = ()

    model.GENERATOR = CN()
    model.GENERATOR.NAME = "DCGANGenerator"
    # channels before the last layer
    model.GENERATOR.WIDTH = 64
    # DCGAN: channels of all layers but the last, in place of WIDTH
    model.GENERATOR.CHANNELS = ()
    # DCGAN: side of the first feature map, 4 or 2
    model.GENERATOR.FIRST_SIDE = 4
    # DCGAN: whether the last layer doubles the side ("up") or keeps it ("flat")
    model.GENERATOR.LAST = "up"
    # ResNet: blocks of the four stages in ResNet's order
    model.GENERATOR.BLOCKS = (2, 2, 2, 2)
    # ResNet: "transposed" convolutions, or "resize" and a convolution, which leaves no checkerboard
    model.GENERATOR.UPSAMPLE = "transposed"
    # of leaky ReLU; 0 for ReLU
    model.GENERATOR.SLOPE = 0.0
    # sides of the feature maps that a self-attention follows
    model.GENERATOR.ATTENTION = ()
    model.GENERATOR.SPECTRAL_NORM = False
    # feed z into every normalisation
    model.GENERATOR.SKIP_Z = False

    model.DISCRIMINATOR = CN()
    model.DISCRIMINATOR.NAME = "DCGANDiscriminator"
    model.DISCRIMINATOR.WIDTH = 64
    model.DISCRIMINATOR.CHANNELS = ()
    # DCGAN: batch normalisation; R1 and DiffAugment do better without
    model.DISCRIMINATOR.NORM = True
    model.DISCRIMINATOR.BLOCKS = (2, 2, 2, 2)
    model.DISCRIMINATOR.ATTENTION = ()

    model.GAN = CN()
    # NonSaturatingBCE, Minimax, LeastSquares, LSGAN, Hinge, Wasserstein or RelativisticAverage
    model.GAN.OBJECTIVE = "NonSaturatingBCE"
    # augmentation of all that the discriminator sees: some of "colour,translation,cutout,flip"; "" for none
    model.GAN.DIFFAUG = ""
    # standard deviation of Gaussian noise on all that the discriminator sees
    model.GAN.INSTANCE_NOISE = 0.0
    # the discriminator's targets are drawn uniformly from these ranges
    model.GAN.LABELS = CN()
    model.GAN.LABELS.REAL = (1.0, 1.0)
    model.GAN.LABELS.FAKE = (0.0, 0.0)
    model.GAN.LABELS.FLIP_PROB = 0.0
    model.GAN.REG = CN()
    # gamma of R1; 0 for none
    model.GAN.REG.R1_GAMMA = 0.0
    # weight of WGAN-GP's gradient penalty; 0 for none
    model.GAN.REG.GP_WEIGHT = 0.0
    # both act every so many iterations, with so many times their weight
    model.GAN.REG.EVERY = 16
    # spectral normalisation of every weight of the discriminator
    model.GAN.REG.SPECTRAL_NORM = False
    # decay of the generator's moving average; 0 keeps none
    model.GAN.EMA = CN()
    model.GAN.EMA.DECAY = 0.0

    # orthogonal regularisation of both networks: its weight (BigGAN's is 1e-4; 0 for none) and its form: "full"
    # (Brock et al. 2016) or "off_diagonal" (BigGAN)
    model.ORTHOGONAL = CN()
    model.ORTHOGONAL.WEIGHT = 0.0
    model.ORTHOGONAL.FORM = "off_diagonal"

    # latent optimisation (LOGAN): alpha and beta of dz = alpha / (beta + |g|^2) g; the bounds of z + dz, 0 for none;
    # the share of z's entries that move; the weight of |dz|^2 in the generator's loss. The document gives no number.
    model.LOGAN = CN()
    model.LOGAN.ENABLED = False
    model.LOGAN.ALPHA = 0.9
    model.LOGAN.BETA = 5.0
    model.LOGAN.CLIP = 0.0
    model.LOGAN.SHARE = 1.0
    model.LOGAN.PENALTY = 0.0

    # an encoder trained jointly with the generator (LOGAN-B): weights of |E(G(z)) - z|^2, of |G(E(x)) - x| and of the
    # adversarial loss of G(E(x)). The source document gives no number.
    model.ENCODER = CN()
    model.ENCODER.ENABLED = False
    model.ENCODER.WIDTH = 64
    model.ENCODER.LATENT_WEIGHT = 1.0
    model.ENCODER.IMAGE_WEIGHT = 1.0
    model.ENCODER.ADVERSARIAL_WEIGHT = 1.0
    return model


def _solver_node() -> CN:
    solver = CN()
    # crops of a batch over all processes
    solver.IMS_PER_BATCH = 256
    # batches of a step: 512 crops on a small card are 128 and 4
    solver.ACCUMULATE = 1
    solver.MAX_EPOCHS = 3500
    # iterations in place of epochs; 0 for epochs
    solver.MAX_ITER = 0
    # Adam for both players; the generator's:
    solver.BASE_LR = 1e-4
    solver.BETAS = (0.5, 0.999)
    solver.WEIGHT_DECAY = 1e-3
    # "alternating": the generator learns against the discriminator that has just moved; "simultaneous": both learn from
    # the same weights, as in LOGAN's algorithm 1, where one optimisation of the latents serves both
    solver.ORDER = "alternating"
    # the discriminator's, and its steps for each of the generator's
    solver.DISC = CN()
    solver.DISC.BASE_LR = 1e-4
    solver.DISC.BETAS = (0.5, 0.999)
    solver.DISC.WEIGHT_DECAY = 1e-3
    solver.DISC.STEPS = 1
    # "constant", or "linear" down to 0 over the second half
    solver.SCHEDULE = "constant"
    # of both players: the norm of all gradients ("norm") or each entry ("value")
    solver.CLIP_GRADIENTS = CN()
    solver.CLIP_GRADIENTS.ENABLED = False
    solver.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    solver.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    solver.AMP = CN()
    solver.AMP.ENABLED = False
    # epochs between checkpoints, and how many of the last are kept; the best in FID and in IS stay besides
    solver.CHECKPOINT_EPOCHS = 50
    solver.KEEP = 3
    return solver


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
    for key, choices in CHOICES.items():
        check_name(key, look_up(cfg, key), choices)
    for keys, is_good, expected in _RULES:
        for key in keys:
            if not is_good(value := look_up(cfg, key)):
                raise UserError(f"{key} is {value!r}; set it to {expected}.")
    if cfg.MODEL.LABEL.KIND and cfg.MODEL.ENCODER.ENABLED:
        raise UserError("MODEL.ENCODER knows no labels; set MODEL.LABEL.KIND to '' or MODEL.ENCODER.ENABLED to False.")
