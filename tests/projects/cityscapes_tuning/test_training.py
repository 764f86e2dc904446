"""What a trial's training adds to gan_plugin's: frozen parts, the validation loss, remapped heads, the loss of V5."""

import math

import numpy as np
import pytest
import torch
from cityscapes_tuning.config import add_tuning_config
from cityscapes_tuning.training.model_parts import class_names, freeze, remap_heads
from cityscapes_tuning.training.outcome import is_out_of_memory
from cityscapes_tuning.training.trainer import TuningTrainer
from cityscapes_tuning.training.validation import EarlyStopped, ValidationLoss, detector_losses
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from fvcore.nn import smooth_l1_loss
from support import SMALLEST_MODEL
from torch import nn

from gan_plugin import add_gan_config
from gan_plugin.engine.optimizers import build_generator_optimizer
from gan_plugin.errors import UserError


@pytest.fixture
def cfg(run_cfg):
    """The tiny adversarial model's config with the study's keys, plain."""
    tuned = get_cfg()
    add_gan_config(tuned)
    add_tuning_config(tuned)
    tuned.merge_from_other_cfg(run_cfg)
    tuned.merge_from_list([part for item in SMALLEST_MODEL.items() for part in item])
    tuned.MODEL.GAN.ENABLED = False
    tuned.SOLVER.OPTIMIZER = "sgd"
    tuned.INPUT.MASK_FORMAT = "bitmask"
    tuned.TUNING.VAL.DATASETS = ("penn_fudan_val",)
    return tuned


POLICIES = {
    "V1": ({"TUNING.FREEZE": ("backbone",)}, ("backbone.bottom_up.",)),
    "V4": ({"MODEL.BACKBONE.FREEZE_AT": 4}, ("stem.", "res2.", "res3.", "res4.")),
    "V5": (
        {"TUNING.FREEZE": ("backbone", "fpn", "rpn"), "MODEL.RPN.LOSS_WEIGHT": 0.0},
        ("backbone.", "proposal_generator."),
    ),
}


@pytest.mark.parametrize("variant", POLICIES)
def test_frozen_weights_stay_and_all_others_move(cfg, variant):
    settings, frozen = POLICIES[variant]
    cfg.merge_from_list([part for item in settings.items() for part in item])
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WEIGHT_DECAY, cfg.TUNING.VAL.DATASETS = 2, 0.1, ()
    torch.manual_seed(0)
    trainer = TuningTrainer(cfg)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    for name, value in trainer.model.state_dict().items():
        is_frozen = any(part in name for part in frozen)
        if is_frozen:
            assert torch.equal(value, before[name]), name
        elif name.endswith("weight") and "norm" not in name:
            assert not torch.equal(value, before[name]), name


def test_v5_has_no_term_of_the_rpn(cfg, inputs):
    cfg.merge_from_list(["TUNING.FREEZE", ("backbone", "fpn", "rpn"), "MODEL.RPN.LOSS_WEIGHT", 0.0])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    torch.manual_seed(0)
    model = TuningTrainer.build_model(cfg).train()
    with EventStorage(0):
        losses = model(inputs)
    rcnn = losses["loss_box_reg"] + losses["loss_cls"] + losses["loss_mask"]
    assert torch.equal(sum(losses.values()), rcnn) and rcnn > 0


def test_frozen_batch_norm_keeps_its_statistics():
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.bottom_up = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.other = nn.BatchNorm2d(4)
    assert freeze(model, ["backbone"]) == [
        f"backbone.bottom_up.{n}" for n in ("0.weight", "0.bias", "1.weight", "1.bias")
    ]
    assert isinstance(model.backbone.bottom_up[1], FrozenBatchNorm2d) and isinstance(model.other, nn.BatchNorm2d)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    with pytest.raises(UserError, match="no such part"):
        freeze(model, ["rpn"])


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_smooth_l1_is_the_slides_formula(beta):
    x, y = torch.linspace(-3, 3, 101, dtype=torch.float64), torch.zeros(101, dtype=torch.float64)
    by_hand = [0.5 * d * d / beta if d < beta else d - 0.5 * beta for d in x.abs().tolist()]
    for value in (smooth_l1_loss(x, y, beta, "mean"), nn.functional.smooth_l1_loss(x, y, beta=beta)):
        assert float(value) == pytest.approx(sum(by_hand) / len(by_hand))


def test_heads_keep_the_rows_of_shared_classes():
    coco = class_names("coco")
    target = ["person", "rider", "car"]
    generator = torch.Generator().manual_seed(0)

    def state(classes):
        shapes = {
            "roi_heads.box_predictor.cls_score.weight": (classes + 1, 6),
            "roi_heads.box_predictor.bbox_pred.bias": (4 * classes,),
            "roi_heads.mask_head.predictor.weight": (classes, 5, 1, 1),
            "backbone.weight": (3, 3),
        }
        return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}

    weights, initial = state(80), state(3)
    new = remap_heads(weights, initial, coco, target)
    scores, boxes, masks, _ = weights
    assert torch.equal(new[scores][[0, 2, 3]], weights[scores][[0, coco.index("car"), 80]])
    assert torch.equal(new[scores][1], initial[scores][1])
    car = coco.index("car")
    assert torch.equal(new[boxes][8:12], weights[boxes][4 * car : 4 * car + 4])
    assert torch.equal(new[boxes][4:8], initial[boxes][4:8])
    assert torch.equal(new[masks][0], weights[masks][0]) and torch.equal(
        new["backbone.weight"], weights["backbone.weight"]
    )
    with pytest.raises(UserError, match="do not fit the 2 classes"):
        remap_heads(weights, initial, ["a", "b"], target)


def test_validation_loss_is_the_mean_of_single_images_and_changes_nothing(cfg):
    cfg.MODEL.RESNETS.NORM = "BN"
    torch.manual_seed(0)
    trainer = TuningTrainer(cfg)
    model, hook = trainer.model, trainer.validation
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with EventStorage(0) as trainer.storage:
        first, second = hook.measure(1), hook.measure(2)
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    torch.manual_seed(12345)
    with EventStorage(0), torch.no_grad():
        # the loader draws a seed of its own when it begins
        single = [sum(float(v) for v in detector_losses(model, batch).values()) for batch in hook._loader]
    assert len(single) == 2
    assert first["total"] == pytest.approx(np.mean(single), rel=1e-5)


def test_the_adversary_has_no_part_in_the_validation_loss(cfg, inputs):
    cfg.MODEL.GAN.ENABLED, cfg.MODEL.GAN.MODE, cfg.MODEL.ROI_HEADS.NUM_CLASSES = True, "alternating", 2
    torch.manual_seed(0)
    model = build_model(cfg).train()
    with EventStorage(0):
        names = set(detector_losses(model, inputs))
    assert names == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "exhausted"),
    [
        ([3, 2, 2.5, 2.1], 2, 0, True),
        ([3, 2, 2.5, 1.9], 2, 0, False),
        ([3, 2, 2.5], 2, 0, False),
        ([3, 2.95, 2.9], 2, 0.2, True),
        ([3, 4, 5, 6], 0, 0, False),
    ],
)
def test_patience(losses, patience, min_delta, exhausted, tmp_path):
    hook = ValidationLoss(nn.Identity(), [], 1, str(tmp_path), patience=patience, min_delta=min_delta)
    hook.load_state_dict({"history": [{"iteration": i, "total": loss} for i, loss in enumerate(losses)]})
    assert hook.is_exhausted is exhausted


def test_early_stopping_keeps_the_best_weights(cfg, monkeypatch):
    cfg.SOLVER.MAX_ITER, cfg.TUNING.VAL.PERIOD, cfg.TUNING.VAL.PATIENCE = 9, 1, 2
    cfg.TEST.BEST_METRIC = "-val_loss/total"
    scripted = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    monkeypatch.setattr(ValidationLoss, "_losses", lambda self, done: {"loss_cls": next(scripted)})
    trainer = TuningTrainer(cfg)
    with pytest.raises(EarlyStopped):
        trainer.train()
    assert [entry["total"] for entry in trainer.validation.history] == [3.0, 1.0, 2.0, 1.5]
    best = torch.load(f"{cfg.OUTPUT_DIR}/model_best.pth", weights_only=True)
    assert best["iteration"] == 1
    # and what is resumed stops again at once
    again = TuningTrainer(cfg)
    again.resume_or_load(resume=True)
    if again.validation.is_exhausted:
        with pytest.raises(EarlyStopped):
            again.train()


def test_lr_ramp_is_exponential(cfg):
    cfg.TUNING.LR_RANGE.LOW, cfg.TUNING.LR_RANGE.HIGH, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER = 1e-4, 1e2, 1e-4, 7
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1e-4)
    scheduler = TuningTrainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([10.0**k for k in range(-4, 3)])


def test_adams_decay_is_a_term_of_its_gradient(cfg):
    # one step of Adam from zero moments moves every weight by lr against the sign of gradient + decay * weight
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BETAS = "adam", (0.95, 0.999)
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.CLIP_GRADIENTS.ENABLED = 0.01, 0.5, False
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = build_generator_optimizer(cfg, model)
    model.weight.grad = torch.tensor([[-0.1, -0.9]])
    optimizer.step()
    assert model.weight.tolist()[0] == pytest.approx([0.99, 1.01], abs=1e-6)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)


def test_memory_errors_are_known_by_sight():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError()) and not is_out_of_memory(ValueError("no memory of that"))
    assert not is_out_of_memory(RuntimeError(f"shape mismatch {math.pi}"))
