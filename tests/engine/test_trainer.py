"""The trainer as its user sees it: exact resume, what it writes, what it refuses."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.data import build_detection_train_loader
from support import assert_same, load, train

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.modeling.meta_arch import discriminator_parameters


@pytest.mark.parametrize("mode, optimizer", [("joint", "sgd"), ("alternating", "adamw")])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(run_cfg, tmp_path, mode, optimizer):
    """Everything in the last checkpoint: both players, optimizers, schedules, the average, random states.

    The unbroken run evaluates on the way and the resumed one does not, so evaluation is shown to disturb nothing.
    """
    cfg = run_cfg
    cfg.MODEL.GAN.MODE, cfg.SOLVER.OPTIMIZER, cfg.SOLVER.DISC.SCHEDULE = mode, optimizer, "follow"
    cfg.MODEL.GAN.MASK.NORM = "BN"
    cfg.MODEL.GAN.EMA.DECAY = 0.9
    cfg.MODEL.GAN.MASK.INSTANCE_NOISE = 0.1
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD = 6, (4,), 3
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = ("penn_fudan_val",), 2
    train(cfg)
    resumed = cfg.clone()
    resumed.OUTPUT_DIR = str(tmp_path / "resumed")
    resumed.DATASETS.TEST, resumed.TEST.EVAL_PERIOD = (), 0
    os.makedirs(resumed.OUTPUT_DIR)
    shutil.copy(f"{cfg.OUTPUT_DIR}/model_0000002.pth", resumed.OUTPUT_DIR)
    Path(resumed.OUTPUT_DIR, "last_checkpoint").write_text("model_0000002.pth")
    torch.manual_seed(123)
    trainer = train(resumed, resume=True)
    assert trainer.start_iter == 3
    assert_same(load(cfg), load(resumed))
    expected = "disc_optimizer" if mode == "alternating" else "optimizer"
    assert expected in load(cfg)["trainer"]["_trainer"]
    assert_same(load(cfg, "model_final_ema.pth"), load(resumed, "model_final_ema.pth"))


def test_writes_what_a_user_of_detectron2_expects(run_cfg, caplog):
    cfg = run_cfg
    cfg.MODEL.GAN.MODE = "alternating"
    cfg.MODEL.GAN.VIS_PERIOD, cfg.MODEL.GAN.EMA.DECAY = 2, 0.5
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = 20, ("penn_fudan_val",), 10
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = "adamw", 2e-3
    with caplog.at_level("INFO", logger="gan_plugin"):
        train(cfg)
    assert [r for r in caplog.messages if "mask: D(real) " in r and "lr_disc: 0.0002" in r and "|grad D|: " in r]
    out = Path(cfg.OUTPUT_DIR)
    metrics = {}
    for line in (out / "metrics.json").read_text().splitlines():
        metrics.update(json.loads(line))
    losses = ["loss_cls", "loss_mask", "loss_rpn_loc", "loss_adv_mask", "loss_rec_mask", "loss_disc_mask"]
    totals = ["loss_gen_total", "loss_disc_total", "gan/mask/d_real", "gan/mask/d_fake", "gan/mask/d_accuracy"]
    rates = ["lr", "lr_disc", "grad_norm/generator", "grad_norm/discriminator"]
    for name in losses + totals + rates:
        assert isinstance(metrics[name], float), name
    assert metrics["lr"] == pytest.approx(2e-3) and metrics["lr_disc"] == pytest.approx(2e-4)
    assert len(list((out / "samples").glob("iter_*.png"))) == 10
    assert list(out.glob("events.out.tfevents*"))
    assert (out / "inference/coco_instances_results.json").exists() and (out / "ema/inference").is_dir()
    assert (out / "last_checkpoint").read_text() == "model_final.pth"


def test_plain_run_has_no_second_player(run_cfg):
    run_cfg.MODEL.GAN.ENABLED = False
    run_cfg.MODEL.GAN.MODE = "alternating"
    train(run_cfg)
    state = load(run_cfg)
    assert not [name for name in state["model"] if name.startswith("adversaries")]
    assert "disc_optimizer" not in state["trainer"]["_trainer"]


def test_a_finished_run_is_left_as_it_is(run_cfg, caplog):
    train(run_cfg)
    before = Path(run_cfg.OUTPUT_DIR, "metrics.json").read_text()
    with caplog.at_level("INFO", logger="gan_plugin"):
        train(run_cfg, resume=True)
    assert "nothing left to train" in caplog.text
    assert Path(run_cfg.OUTPUT_DIR, "metrics.json").read_text() == before


@pytest.mark.parametrize("optimizer, expected", [("sgd", 0.25e-3), ("adamw", 1e-3)])
def test_joint_mode_logs_the_discriminators_real_rate(run_cfg, optimizer, expected):
    run_cfg.MODEL.GAN.DISC_LR_FACTOR, run_cfg.SOLVER.BASE_LR, run_cfg.SOLVER.OPTIMIZER = 0.25, 1e-3, optimizer
    train(run_cfg)
    line = json.loads(Path(run_cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()[-1])
    assert (line["lr"], line["lr_disc"]) == pytest.approx((1e-3, expected))


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_idle_discriminator_is_not_moved(run_cfg, mode, optimizer):
    """Not by weight decay, not by momentum, and Adam counts no step."""
    run_cfg.MODEL.GAN.MODE, run_cfg.SOLVER.OPTIMIZER, run_cfg.MODEL.GAN.START_ITER = mode, optimizer, 1000
    trainer = AdversarialTrainer(run_cfg)
    before = [p.detach().clone() for p in discriminator_parameters(trainer.model)]
    trainer.train()
    after = discriminator_parameters(trainer.model)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    optimizers = [trainer.optimizer, getattr(trainer._trainer, "disc_optimizer", trainer.optimizer)]
    assert not any(p in o.state for o in optimizers for p in after)


def test_a_projects_own_loader_trains_and_is_told_about_resume(run_cfg, caplog):
    class Project(AdversarialTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return build_detection_train_loader(cfg)

    trainer = Project(run_cfg)
    assert "--resume will start its data anew" in caplog.text
    trainer.train()
    assert train(run_cfg, resume=True).start_iter == 3


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("MODEL.GAN.LABELS.REAL", (1.2, 0.7), "the lower one first"),
        ("MODEL.GAN.LABELS.FLIP_PROB", 5.0, "probability"),
        ("MODEL.GAN.MASK.CHANNELS", (), "one or more"),
        ("MODEL.GAN.MASK.CHANNELS", (16, "a", 64, 64), "whole numbers"),
        ("MODEL.GAN.MASK.INSTANCE_NOISE", -1.0, "0 or more"),
        ("MODEL.GAN.START_ITER", -1, "0 or more"),
        ("DATASETS.MASK_SHARE", 1.5, "from 0 to 1"),
        ("DATASETS.MASK_SHARE", 0.5, "set MODEL.GAN.MASK.BOX_ONLY to True"),
        ("MODEL.GAN.MASK.MEMORY", 0, "1 or more"),
        ("MODEL.GAN.UNPAIRED.PAIRWISE_THRESHOLD", 2.0, "from 0 to 1"),
        ("MODEL.GAN.UNPAIRED.PAIRWISE_DILATION", 0, "1 or more"),
        ("MODEL.GAN.UNPAIRED.TEACHER_CONFIDENCE", 0.2, "from 0.5 to 1"),
        ("MODEL.DEVICE", "gpu", "cuda or cpu"),
        ("MODEL.META_ARCHITECTURE", "Nope", "known ones are .AdversarialRCNN"),
        ("MODEL.ROI_MASK_HEAD.NAME", "Nope", "known ones are .AdversarialMaskHead"),
        ("SOLVER.MAX_ITER", 0, "1 or more"),
        ("SOLVER.STEPS", (3,), "before the end"),
        ("SOLVER.DISC.BASE_LR", -1.0, "0 or more"),
        ("SOLVER.DISC.BETAS", (0.5,), "two numbers"),
        ("DATASETS.SUBSETS.SIZES", (3, 3), "three numbers"),
        ("MODEL.GAN.EMA.DECAY", 1.5, "below 1"),
        ("TEST.PRECISE_BN.ENABLED", True, "does not go together"),
    ],
)
def test_values_that_make_no_sense_are_sentences(run_cfg, key, value, sentence):
    run_cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{key}.*{sentence}"):
        AdversarialTrainer(run_cfg)


def test_augmented_tests_have_rows_of_their_own(run_cfg):
    """At the end of training, for the average too, and on the command line's --eval-only; also without a detection."""
    cfg = run_cfg
    cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD, cfg.MODEL.GAN.EMA.DECAY = 2, 1, 0.5
    cfg.DATASETS.TEST = ("penn_fudan_val",)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.0, 5
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    cfg.TEST.AUG.ENABLED, cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE = True, (64, 96), 128
    trainer = train(cfg)
    lines = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    with_rows = [line for line in lines if "tta/segm/AP" in line]
    assert len(with_rows) == 1 and "segm/AP" in with_rows[0] and {"ema/tta/bbox/AP", "segm/AR100"} <= set(with_rows[0])
    assert (Path(cfg.OUTPUT_DIR) / "tta/inference/coco_instances_results.json").is_file()
    found = AdversarialTrainer.evaluate(cfg, trainer.model)
    for task in ("segm", "bbox"):
        assert found["tta"][task]["AP"] == pytest.approx(with_rows[0][f"tta/{task}/AP"])
    # one size and no flip leave the model's own boxes and masks
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = (96,), False
    found = AdversarialTrainer.evaluate(cfg, trainer.model)
    assert found["tta"]["bbox"]["AP50"] == pytest.approx(found["bbox"]["AP50"], abs=2.0)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    none = AdversarialTrainer.build_model(cfg)
    assert math.isnan(AdversarialTrainer.evaluate(cfg, none)["tta"]["segm"]["AP"])


def test_a_resumed_run_takes_another_learning_rate_and_decay(run_cfg):
    """What the advice after a divergence relies on; PyTorch alone would go on with those of the checkpoint."""
    cfg = run_cfg
    cfg.MODEL.GAN.MODE, cfg.SOLVER.OPTIMIZER = "alternating", "sgd"
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.BASE_LR = 2, (1,), 1, 0.01
    train(cfg)
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.DISC.BASE_LR = 3, 0.001, 0.5, 0.25
    trainer = train(cfg, resume=True)
    group = trainer.optimizer.param_groups[0]
    assert group["initial_lr"] == 0.001 and group["weight_decay"] == 0.5
    assert group["lr"] == pytest.approx(0.001 * cfg.SOLVER.GAMMA)
    assert trainer._trainer.disc_optimizer.param_groups[0]["lr"] == 0.25
    last = json.loads((Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()[-1])
    assert last["lr"] == pytest.approx(0.001 * cfg.SOLVER.GAMMA) and last["lr_disc"] == 0.25
