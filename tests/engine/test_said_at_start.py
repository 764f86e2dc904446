"""What a config asks for in vain is said before anything is trained."""

import logging

import pytest
from detectron2.data import MetadataCatalog
from support import plugin_cfg

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.engine.check_config import check_values, keys_without_effect, warn_of_idle_keys
from gan_plugin.engine.train_loader import _sampler_factory
from gan_plugin.evaluation.build import metric_names


def named(cfg, *pairs):
    cfg = cfg.clone()
    cfg.merge_from_list(list(pairs))
    return cfg


GAME = ["MODEL.META_ARCHITECTURE", "AdversarialRCNN", "MODEL.GAN.ENABLED", True, "MODEL.MASK_ON", True]
GAME += ["MODEL.ROI_MASK_HEAD.NAME", "AdversarialMaskHead", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"]
GAME += ["MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"]


@pytest.mark.parametrize(
    "key, name, nearest, needs",
    [
        ("META_ARCHITECTURE", "AdversarialRCN", "AdversarialRCNN", []),
        ("BACKBONE.NAME", "build_resnet_fpn_backbon", "build_resnet_fpn_backbone", []),
        ("PROPOSAL_GENERATOR.NAME", "RPNN", "RPN", []),
        ("RPN.HEAD_NAME", "StandardRPNHed", "StandardRPNHead", []),
        ("ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerato", "DefaultAnchorGenerator", []),
        ("ROI_HEADS.NAME", "StandardROIHead", "StandardROIHeads", []),
        ("ROI_BOX_HEAD.NAME", "FastRCNNConvHead", "FastRCNNConvFCHead", []),
        ("ROI_MASK_HEAD.NAME", "AdversarialHead", "AdversarialMaskHead", []),
        ("ROI_KEYPOINT_HEAD.NAME", "KRCNNConvUpsampleHead", "KRCNNConvDeconvUpsampleHead", ["MODEL.KEYPOINT_ON", True]),
        ("SEM_SEG_HEAD.NAME", "SemSegHead", "SemSegFPNHead", ["MODEL.META_ARCHITECTURE", "PanopticFPN"]),
        ("GAN.MASK.DISCRIMINATOR", "PixelDiscriminator", "PixelMaskDiscriminator", []),
        ("GAN.MASK.OBJECTIVE", "LeastSquare", "LeastSquares", []),
        ("GAN.BOX.OBJECTIVE", "Wassertein", "Wasserstein", ["MODEL.GAN.BOX.ENABLED", True]),
        ("GAN.BOX.DISCRIMINATOR", "BoxDiscriminator", "BoxFeatureDiscriminator", ["MODEL.GAN.BOX.ENABLED", True]),
    ],
)
def test_an_unknown_name_of_a_part_is_refused_where_the_model_has_the_part(key, name, nearest, needs):
    cfg = named(plugin_cfg(), *GAME, *needs)
    check_values(cfg)
    with pytest.raises(
        UserError, match=f"MODEL.{key} is '{name}', which is unknown; did you mean '{nearest}'. The kno"
    ):
        check_values(named(cfg, f"MODEL.{key}", name))
    if needs:
        check_values(named(plugin_cfg(), *GAME, f"MODEL.{key}", name))


def test_names_of_parts_that_another_model_has_do_not_matter():
    cfg = named(plugin_cfg(), "MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.ROI_HEADS.NAME", "Nope")
    check_values(named(cfg, "MODEL.RPN.HEAD_NAME", "Nope", "MODEL.PROPOSAL_GENERATOR.NAME", "Nope"))
    with pytest.raises(UserError, match="MODEL.ANCHOR_GENERATOR.NAME is 'Nope', which is unknown; the known"):
        check_values(named(cfg, "MODEL.ANCHOR_GENERATOR.NAME", "Nope"))


def test_names_of_samplers_and_schedules_too():
    cfg = plugin_cfg()
    with pytest.raises(UserError, match="SAMPLER_TRAIN is 'TrainSampler', which is unknown; did you mean 'TrainingS"):
        _sampler_factory(named(cfg, "DATALOADER.SAMPLER_TRAIN", "TrainSampler"))
    for key, name in (("LR_SCHEDULER_NAME", "WarmupMultiStep"), ("WARMUP_METHOD", "linea")):
        with pytest.raises(UserError, match=f"SOLVER.{key} is '{name}', which is unknown; did you mean"):
            AdversarialTrainer.build_lr_scheduler(named(cfg, f"SOLVER.{key}", name), None)


@pytest.mark.parametrize(
    "pairs, keys, why",
    [
        (["MODEL.GAN.ENABLED", False, "MODEL.GAN.MASK.INPUT_SIZE", 64], ["MASK.INPUT_SIZE"], "ENABLED is False"),
        (["MODEL.GAN.ORDER", "paper", "MODEL.GAN.DISC_STEPS", 2], ["ORDER", "DISC_STEPS"], "MODE is joint"),
        (["SOLVER.DISC.BASE_LR", 0.5], ["SOLVER.DISC.BASE_LR"], "MODE is joint"),
        (["MODEL.GAN.MODE", "alternating", "MODEL.GAN.DISC_LR_FACTOR", 0.5], ["DISC_LR_FACTOR"], "MODE is alternating"),
        (["MODEL.GAN.BOX.CHANNELS", (3,)], ["BOX.CHANNELS"], "BOX.ENABLED is False"),
        (["SOLVER.BETAS", (0.5, 0.5)], ["SOLVER.BETAS"], "SOLVER.OPTIMIZER is sgd"),
        (["SOLVER.OPTIMIZER", "adam", "MODEL.GAN.DISC_LR_FACTOR", 0.5], ["DISC_LR_FACTOR"], "OPTIMIZER is adam"),
        (["MODEL.GAN.EMA.EVALUATE", False], ["EMA.EVALUATE"], "EMA.DECAY is 0"),
        (["MODEL.GAN.REG.EVERY", 3], ["REG.EVERY"], "no penalty"),
        (["MODEL.GAN.MASK.MATCH_IOU", 0.7], ["MASK.MATCH_IOU"], "MATCHING is proposal"),
        (["MODEL.GAN.ROI_POOLING", "max"], ["ROI_POOLING"], "RoI features"),
        (["MODEL.GAN.MASK.OBJECTIVE", "Hinge", "MODEL.GAN.LABELS.FLIP_PROB", 0.4], ["FLIP_PROB"], "labels"),
        (["DATASETS.TEST", (), "TEST.EVAL_PERIOD", 5, "TEST.BEST_METRIC", "x"], ["PERIOD", "METRIC"], "TEST is empty"),
        (["TEST.AUG.MAX_SIZE", 50], ["AUG.MAX_SIZE"], "AUG.ENABLED is False"),
    ],
)
def test_keys_without_effect_are_told_with_the_reason(caplog, pairs, keys, why):
    cfg = named(plugin_cfg(), *GAME, "DATASETS.TEST", ("some",), *pairs)
    (reason,) = (reason for reason in keys_without_effect(cfg) if why in reason)
    found = keys_without_effect(cfg)[reason]
    assert len(found) == len(keys) and all(name.endswith(key) for name, key in zip(found, keys, strict=True))
    with caplog.at_level(logging.INFO, "gan_plugin"):
        warn_of_idle_keys(cfg)
    lines = [record for record in caplog.records if why in record.message]
    assert len(lines) == 1 and all(name in lines[0].message for name in found)
    assert lines[0].levelname == ("INFO" if "MODEL.GAN.ENABLED" in reason else "WARNING")


def test_a_metric_that_no_evaluation_gives_is_refused(tmp_path):
    metadata = MetadataCatalog.get("a_set")
    metadata.set(evaluator_type="coco", thing_classes=["car", "van"])
    cfg = named(plugin_cfg(), *GAME, "DATASETS.TEST", ("a_set",), "OUTPUT_DIR", str(tmp_path))
    for name in (
        "segm/APP",
        "AP",
        "segm_AP",
        "segm/AP-bus",
        "boundary/AP",
        "ema/segm/AP",
        "tta/bbox/AP",
        "cityscapes/AP",
    ):
        with pytest.raises(UserError, match=f"TEST.BEST_METRIC is '{name}', which is unknown; .* ones are 'segm/AP"):
            AdversarialTrainer(named(cfg, "TEST.BEST_METRIC", name))
    for pairs, name in (
        ([], "bbox/AR100"),
        ([], "segm/AP-van"),
        (["MODEL.GAN.EMA.DECAY", 0.9], "ema/segm/APs"),
        (["TEST.AUG.ENABLED", True], "tta/segm/AP50"),
        (["TEST.PER_IMAGE_AP", True], "per_image/rAP"),
        (["DATASETS.TEST", ("a_set", "another")], "a_set/bbox/AP"),
    ):
        assert name in metric_names(named(cfg, *pairs)), name


class OwnEvaluation(AdversarialTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        raise NotImplementedError


def test_the_metrics_of_a_trainer_with_its_own_evaluation_are_its_own():
    assert AdversarialTrainer.metric_names(named(plugin_cfg(), "DATASETS.TEST", ("a_set",)))
    assert not OwnEvaluation.metric_names(named(plugin_cfg(), "DATASETS.TEST", ("a_set",)))


@pytest.mark.parametrize("pairs", [["MODEL.KEYPOINT_ON", True], ["MODEL.META_ARCHITECTURE", "RetinaNet"]])
def test_augmentation_that_the_model_cannot_have_is_refused(pairs):
    with pytest.raises(UserError, match="TEST.AUG.ENABLED is for a GeneralizedRCNN"):
        check_values(named(plugin_cfg(), "TEST.AUG.ENABLED", True, *pairs, "MODEL.GAN.ENABLED", False))
