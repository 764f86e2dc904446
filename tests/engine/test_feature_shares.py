"""What each loss makes up of the gradient at the features: where it is known, and that looking changes nothing."""

import copy
import itertools

import pytest
import torch
from detectron2.utils.events import EventStorage
from foreign_models import KINDS, foreign_cfg
from small_models import BOTH_PLAYERS, build, small
from support import assert_same
from torch import nn

from gan_plugin import AdversarialTrainer
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.errors import UserError
from gan_plugin.modeling.meta_arch import discriminator_parameters


def step_of(model, batch, period, mode="joint", order="thesis", **options):
    """One step; returns the scalars under "feature_" and the model."""
    players = discriminator_parameters(model)
    of_generator = [p for p in model.parameters() if mode == "joint" or all(p is not q for q in players)]
    optimizer, batches = torch.optim.SGD(of_generator, 0.01), itertools.cycle([batch])
    options["shares_period"] = period
    if mode == "joint":
        step = JointStep(model, batches, optimizer, **options)
    else:
        step = AlternatingStep(model, batches, optimizer, torch.optim.SGD(players, 0.01), order, **options)
    torch.manual_seed(1)
    with EventStorage(0) as storage:
        step.iter = 0
        step.run_step()
    return {name: value for name, (value, _) in storage.latest().items() if name.startswith("feature_")}


def shares_of(scalars):
    return {name.partition("/")[2]: value for name, value in scalars.items() if name.startswith("feature_share/")}


@pytest.mark.parametrize("mode, amp", [("joint", False), ("alternating", False), ("joint", True)])
def test_the_mask_loss_once_more_has_its_share_and_direction(tiny_cfg, make_inputs, mode, amp):
    """With three tenths of loss_mask's gradient at the logits it has three tenths at the features."""
    keys = {
        "MODEL.GAN.MODE": mode,
        "MODEL.GAN.MASK.WEIGHT": 0.0,
        "MODEL.GAN.MASK.REC_WEIGHT": 1.0,
        "MODEL.GAN.MASK.REC_LOSS": "bce",
        "MODEL.GAN.BALANCE.SHARE": 0.3,
    }
    found = step_of(build(small(tiny_cfg, keys)), make_inputs(1, side=64), 1, mode, amp=amp)
    shares = shares_of(found)
    assert sum(shares.values()) == pytest.approx(1) and set(shares) == {
        "loss_mask",
        "others",
        "loss_adv_mask",
        "loss_rec_mask",
    }
    assert shares["loss_rec_mask"] / shares["loss_mask"] == pytest.approx(0.3, rel=1e-3 if not amp else 0.05)
    assert found["feature_cosine/loss_rec_mask"] == pytest.approx(1, abs=1e-4 if not amp else 0.01)
    assert shares["loss_adv_mask"] == 0 and abs(found["feature_cosine/others"]) < 0.9


def test_other_players_other_reaches_and_no_game(tiny_cfg, make_inputs):
    batch = make_inputs(1, side=64)
    both = shares_of(step_of(build(small(tiny_cfg, BOTH_PLAYERS)), batch, 1))
    assert both["loss_adv_box"] > 0 and both["loss_adv_mask"] > 0
    head = shares_of(step_of(build(small(tiny_cfg, {"MODEL.GAN.MASK.REACH": "head"})), batch, 1))
    assert head["loss_adv_mask"] == head["loss_rec_mask"] == 0 < head["loss_mask"]
    plain = shares_of(step_of(build(small(tiny_cfg, {"MODEL.GAN.ENABLED": False})), batch, 1))
    assert set(plain) == {"loss_mask", "others"}
    # the same at the same weights and images, as far as the plain losses go
    assert plain["loss_mask"] / plain["others"] == pytest.approx(head["loss_mask"] / head["others"], rel=1e-5)
    queries = shares_of(step_of(build(foreign_cfg(*KINDS["queries"])), batch, 1))
    assert set(queries) == {"loss_mask", "loss_adv_mask", "loss_rec_mask"} and queries["loss_adv_mask"] > 0


@pytest.mark.parametrize("mode, order", [("joint", "thesis"), ("alternating", "thesis"), ("alternating", "paper")])
def test_looking_changes_no_weight_and_off_looks_at_nothing(tiny_cfg, make_inputs, mode, order):
    """With absolute weights, so that the shares go back through the discriminator themselves."""
    model = build(small(tiny_cfg, {"MODEL.GAN.MODE": mode, "MODEL.GAN.BALANCE.SHARE": 0.0}))
    twin, batch = copy.deepcopy(model), make_inputs(1, side=64)
    assert step_of(model, batch, 1, mode, order) and not step_of(twin, batch, 2, mode, order)
    assert_same(dict(model.state_dict()), dict(twin.state_dict()))
    assert not model.backbone._forward_hooks


def test_the_trainer_obeys_the_key_and_refuses_what_it_cannot(run_cfg):
    run_cfg.SOLVER.GRADIENT_SHARES_PERIOD = 2
    assert AdversarialTrainer(run_cfg)._trainer.shares_period == 2
    run_cfg.MODEL.GAN.COMPILE, run_cfg.MODEL.GAN.BALANCE.SHARE = True, 0.0
    with pytest.raises(UserError, match="SOLVER.GRADIENT_SHARES_PERIOD goes back through a discriminator twice"):
        AdversarialTrainer(run_cfg)
    with pytest.raises(UserError, match="looks at the features of a backbone, and Linear has none"):
        JointStep(nn.Linear(1, 1), [], None, shares_period=1)
