"""Every config key with its default and one comment, and which values may be; no other place knows a default.

The defaults are COIGAN's own (thesis 4.4; its code's first release). configs/ has the other presets.
"""

from detectron2.config import CfgNode as CN
from yacs.config import CfgNode

from gan_plugin.config import check_name
from gan_plugin.engine.setup import merge_options
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


def shapes_defaults() -> CN:
    """SHAPES, which shapes-train reads."""
    shapes = CN()
    # SWAGAN's latent, mapping layers and channels
    shapes.STYLE_SIZE = 512
    shapes.MAPPING_LAYERS = 8
    shapes.WIDTH = 512
    shapes.CHANNEL_MULTIPLIER = 2
    # "masks" learns the masks of one class, "base" the base tiles
    shapes.SOURCE = "masks"
    # the index of the class whose masks are learnt, and how many of them a tile holds
    shapes.CLASS = 0
    shapes.COUNTS = (1, 3)
    shapes.MAX_ITER = 800000
    shapes.IMS_PER_BATCH = 32
    # Adam; rate and betas are corrected for the lazy regularisers (Karras et al. 2020, appendix B)
    shapes.LR = 0.002
    shapes.BETAS = (0.0, 0.99)
    # probability of two latents in one image
    shapes.MIXING = 0.9
    # gamma of R1, with the paper's 1/2
    shapes.R1 = 10.0
    shapes.R1_EVERY = 16
    shapes.PATH_LENGTH = 2.0
    shapes.PATH_EVERY = 4
    # the path length takes this part of a batch
    shapes.BATCH_SHRINK = 2
    shapes.EMA_DECAY = 0.5 ** (32 / 10000)
    return shapes


def get_cfg() -> CN:
    """The defaults."""
    cfg = CN()
    cfg.VERSION = 2
    cfg.OUTPUT_DIR = "output/coigan"
    cfg.SEED = 42
    # "inpainting", or "shapes" for the generator of masks (shapes-train sets it)
    cfg.GAME = "inpainting"
    # "cuda", "cpu", or "" for a GPU where there is one
    cfg.DEVICE = ""
    cfg.INPUT = CN()
    # side of the square tiles in pixels
    cfg.INPUT.SIZE = 256
    # names of the mask channels; training takes them from its data
    cfg.INPUT.CLASSES = ()
    cfg.INPUT.NOISE = CN()
    # the noise in masks: normal of MEAN and STD; "additive", "multiplicative" or "replace"
    cfg.INPUT.NOISE.MEAN = 0.5
    cfg.INPUT.NOISE.STD = 0.08
    cfg.INPUT.NOISE.STRATEGY = "replace"
    # noises drawn at 1/s of the size and enlarged, whose sum it is; () for one at full size
    cfg.INPUT.NOISE.SCALES = ()
    # side of the Gaussian kernel that softens the masks; 0 for none
    cfg.INPUT.NOISE.SMOOTH = 41
    cfg.DATA = _data()
    cfg.MODEL = _model()
    cfg.LOSS = _losses()
    cfg.SOLVER = _solver()
    cfg.TEST = _test()
    cfg.SHAPES = shapes_defaults()
    return cfg


def _data() -> CN:
    data = CN()
    # folder of the prepared data set
    data.ROOT = ""
    # probabilities of 0, 1, 2, ... objects of a class in a sample; or a row of them for each class: rare classes come
    # as often as their row says, however few objects they have
    data.COUNTS = (0.4, 0.475, 0.1, 0.025)
    # "retry": a sample without objects tries further ones; "last_class", COIGAN's own rule: there the last class of the
    # sample's random order places one, which may still fail; "" for neither
    data.FORCE_NON_EMPTY = "retry"
    # turn, scale and shear the objects
    data.AUGMENT = True
    # a preset of coigan.data.placer in place of that, such as inpainting or defects; "" for none
    data.PRESET = ""
    # objects may lie on one another
    data.OVERLAP = False
    # ask the generator for other masks than those of the real defects that the discriminator sees
    data.DIFFERENT_SHAPES = False
    # where those other masks come from: "dataset", or "generated" (banks of shapes-train, a folder for each class)
    data.SHAPE_SOURCE = "dataset"
    data.SHAPE_BANKS = ()
    # black the base image out under the masks
    data.MASK_BASE = False
    # axes along which base and reference tiles are mirrored half of the time: "both", "horizontal", "vertical" or ""
    data.FLIP = "both"
    return data


def _model() -> CN:
    model = CN()
    generator = CN()
    # LamaFourier, Pix2PixHD, MultiDilated, Pix2PixUNet, or StyleFFCUNet (the thesis' future work)
    generator.NAME = "LamaFourier"
    # channels of the first layer, doubled by each of DOWNS steps up to MAX_CHANNELS
    generator.WIDTH = 64
    generator.DOWNS = 3
    generator.MAX_CHANNELS = 1024
    # residual blocks; LaMa's paper has 9
    generator.BLOCKS = 8
    # LamaFourier and StyleFFCUNet: share of channels that see the whole image
    generator.GLOBAL_RATIO = 0.75
    # LamaFourier: "sum" as in LaMa's code, "concat" as in the thesis' table 2.1
    generator.SPECTRAL = "sum"
    # LamaFourier, Pix2PixHD, MultiDilated: "transposed" convolutions as in LaMa, or "resize" and convolve
    generator.UPSAMPLE = "transposed"
    # "BN", "GN", or "SyncBN" over all processes
    generator.NORM = "SyncBN"
    # Pix2PixUNet: the paper's noise
    generator.DROPOUT = 0.5
    # StyleFFCUNet: latent and style, and layers between them
    generator.STYLE_SIZE = 512
    generator.MAPPING_LAYERS = 8
    # result = base image outside of the masks, dilated by so many pixels; -1 takes the generator's pixels everywhere
    generator.BLEND_MARGIN = -1
    model.GENERATOR = generator
    model.DISCRIMINATOR = _discriminator()
    model.REF_DISCRIMINATOR = _discriminator()
    # whether whole images are judged as well
    model.REF_DISCRIMINATOR.ENABLED = True
    return model


def _discriminator() -> CN:
    node = CN()
    # WaveletDiscriminator (one verdict an image) or PatchDiscriminator (a map of verdicts)
    node.NAME = "WaveletDiscriminator"
    # channels: at sides up to 32 for the first, 512 in the paper; of the first layer for the second, 64 in the paper
    node.WIDTH = 512
    # WaveletDiscriminator: widens sides above 32
    node.CHANNEL_MULTIPLIER = 3
    node.STDDEV_GROUP = 4
    # stretches what it looks at around the mean grey of each canvas, for faint textures; 1 as in the thesis. R1 grows
    # with its square
    node.CONTRAST = 1.0
    # PatchDiscriminator
    node.PATCH_LAYERS = 4
    node.NORM = "SyncBN"
    return node


def _weighted(weight: float, **more: object) -> CN:
    node = CN()
    # 0 switches a loss off
    node.WEIGHT = weight
    # () keeps the weight; (last weight, iterations) goes there in a straight line
    node.SCHEDULE = ()
    node.update(more)
    return node


def _losses() -> CN:
    loss = CN()
    # one of gan_plugin's objectives of logits: NonSaturatingBCE is the thesis' softplus
    loss.OBJECTIVE = "NonSaturatingBCE"
    # with a PatchDiscriminator: only patches that touch a mask are fake to the reference discriminator (LaMa)
    loss.MASKED_PATCHES = False
    # augmentation of what the discriminators see: some of "translation,cutout,flip"; "" for none
    loss.DIFFAUG = ""
    # DIFFAUG as often as overfitting asks for (ADA): target of E[sign(D(real))], 0.6 in the paper, 0 for always; and
    # the real images in which the probability could rise from 0 to 1
    loss.ADA = CN({"TARGET": 0.0, "IMAGES": 500000})
    # the generator's
    loss.ADVERSARIAL = _weighted(20.0)
    loss.REF_ADVERSARIAL = _weighted(8.0)
    # smooth masked: weights inside and outside of the masks, side of the square that smooths them
    loss.L1_SMOOTH = _weighted(5.0, INSIDE=0.1, OUTSIDE=1.0, KERNEL=31)
    loss.PERCEPTUAL_SMOOTH = _weighted(0.3, INSIDE=0.1, OUTSIDE=1.0, KERNEL=31)
    # plain
    loss.L1 = _weighted(0.0)
    loss.MSE = _weighted(0.0)
    # "mean" or "sum", of L1 and MSE
    loss.REDUCTION = "mean"
    # MEAN divides by the number of layers (thesis equation 2.15)
    loss.PERCEPTUAL = _weighted(0.0, MEAN=False)
    # on the features of the reference discriminator: absolute, and squared differences (LaMa's DiscPL)
    loss.FEATURE_MATCHING = _weighted(0.0)
    loss.DISC_PERCEPTUAL = _weighted(0.0)
    # a step of its own every EVERY turns of the generator, EVERY times as heavy
    loss.PATH_LENGTH = _weighted(5.0, EVERY=4)
    # the discriminators'
    loss.DISCRIMINATOR = _weighted(5.0)
    loss.REF_DISCRIMINATOR = _weighted(5.0)
    # WEIGHT * E|grad D(real)|^2, without the paper's 1/2, as in COIGAN's code; every EVERY turns of a discriminator
    loss.R1 = _weighted(3.0, EVERY=16)
    # what the perceptual losses compare: path of a ResNet-50's weights and the begin of their SHA-256; without a path
    # "lite0" (EfficientNet-Lite0, ImageNet), "random" (fixed convolutions), or "auto": lite0 where it is installed
    loss.FEATURES = CN({"WEIGHTS": "", "SHA256": "", "NETWORK": "auto"})
    return loss


def _solver() -> CN:
    solver = CN()
    # an iteration is a turn of the discriminators or of the generator, on a batch of its own
    solver.MAX_ITER = 800000
    # images over all processes
    solver.IMS_PER_BATCH = 8
    solver.NUM_WORKERS = 6
    # turns of the discriminators, then of the generator, and so on
    solver.DISC_STEPS = 1
    solver.GEN_STEPS = 1
    # the reference discriminator learns at every so many turns of the discriminators
    solver.REF_DISC_STEPS_DELAY = 1
    # "adamw", "adam", "sgd" or "rmsprop"
    solver.OPTIMIZER = "adamw"
    solver.LR = 0.002
    # of both discriminators; 0 for LR
    solver.DISC_LR = 0.0
    solver.BETAS = (0.0, 0.998)
    solver.WEIGHT_DECAY = 0.01
    # greatest norm of the generator's gradients, 0 for no clipping
    solver.CLIP_NORM = 0.0
    solver.AMP = False
    # decay of the generator's moving average, 0 for none
    solver.EMA_DECAY = 0.999
    solver.CHECKPOINT_PERIOD = 10000
    # how many of the last checkpoints are kept, 0 for all
    solver.KEEP = 0
    # iterations between pictures (base, masks, result), and between lines of the log
    solver.SAMPLE_PERIOD = 500
    solver.WRITE_PERIOD = 20
    # the pictures also show the masks with their noise, and painted and real defects on black
    solver.SAMPLE_DETAILS = False
    # iterations between histograms of weights and gradients in TensorBoard, 0 for none
    solver.HISTOGRAM_PERIOD = 0
    return solver


def _test() -> CN:
    test = CN()
    # iterations between scores on the way, each of which may give model_best_crop_fid.pth (crops of objects) and
    # model_best_fid.pth (whole pictures); 0 for none
    test.EVAL_PERIOD = 0
    # generated images, and at most so many real ones, of a FID, and as many crops; the source takes 40000
    test.IMAGES = 2000
    # path of torch-fidelity's Inception weights; "" for FEATURES, whose numbers compare among themselves only
    test.INCEPTION = ""
    # "lite0" (EfficientNet-Lite0, ImageNet), "random" (fixed convolutions), or "auto": lite0 where it is installed
    test.FEATURES = "auto"
    test.BATCH = 8
    return test


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
