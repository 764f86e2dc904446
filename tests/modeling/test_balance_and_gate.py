"""How hard the game pulls: the balance of two gradients worked by hand, and the discriminator that has to rest."""

import pytest
import torch
from detectron2.utils.events import EventStorage
from small_models import BOTH_PLAYERS, build, losses_of, small
from torch import nn

from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.balance import GradientNormBalance
from gan_plugin.modeling.gate import AccuracyGate
from gan_plugin.modeling.losses import build_objective
from gan_plugin.modeling.samples import MaskSamples, RealFakePair


def test_balance_is_the_ratio_of_gradient_norms():
    """|(3, 4)| = 5 beside |(6, 8)| * 0.25 = 2.5."""
    weight = nn.Parameter(torch.tensor([0.7, -0.3]))
    reference, loss = weight @ torch.tensor([3.0, 4.0]), 0.25 * weight @ torch.tensor([6.0, 8.0])
    ratio = GradientNormBalance()(reference, loss, weight)
    assert ratio.item() == pytest.approx(2, rel=1e-5) and not ratio.requires_grad
    assert GradientNormBalance(max_weight=1.5)(reference, loss, weight).item() == 1.5
    # both graphs are still whole, for the losses themselves
    (reference + loss).backward()
    assert weight.grad.tolist() == pytest.approx([4.5, 6])


def test_balance_without_a_gradient_is_finite():
    weight, other = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))
    pull, none = weight.sum() * 2, weight.sum() * 0
    assert GradientNormBalance(max_weight=100.0)(pull, none, weight).item() == 100
    assert GradientNormBalance(max_weight=100.0)(pull, other.sum(), weight).item() == 100
    assert GradientNormBalance()(none, pull, weight).item() == 0
    assert GradientNormBalance()(none, none, weight).item() == 0


@pytest.mark.parametrize("player, head", [("mask", "mask_head.predictor"), ("box", "box_predictor.bbox_pred")])
def test_balanced_losses_pull_equally_hard_at_the_last_layer(tiny_cfg, make_inputs, player, head):
    """At WEIGHT 1 the norms are equal, at 0.3 one is 0.3 of the other."""
    keys = {"MODEL.GAN.BALANCE.ENABLED": True, "MODEL.GAN.MASK.WEIGHT": 0.3, "MODEL.GAN.BOX.WEIGHT": 1.0}
    model = build(small(tiny_cfg, BOTH_PLAYERS, keys))
    losses = losses_of(model, make_inputs(1, side=64))
    weight = model.get_parameter(f"roi_heads.{head}.weight")
    own = losses["loss_mask" if player == "mask" else "loss_box_reg"]
    norms = [
        torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (losses[f"loss_adv_{player}"], own)
    ]
    assert (norms[0] / norms[1]).item() == pytest.approx(0.3 if player == "mask" else 1.0, rel=1e-2)


def test_gate_closes_above_the_limit_and_opens_again():
    gate = AccuracyGate(0.6)
    # 0.5, then a tenth of the way to 1 each time: 0.55, 0.595, 0.6355
    assert [gate.update(1.0, 4) for _ in range(3)] == [True, True, False]
    assert gate.accuracy.item() == pytest.approx(0.6355)
    assert not gate.update(0.0, 0), "no samples are no news"
    assert gate.accuracy.item() == pytest.approx(0.6355)

    resumed = AccuracyGate(0.6)
    resumed.load_state_dict(gate.state_dict())
    assert resumed.update(0.5, 2) is gate.update(0.5, 2) is False
    assert resumed.update(0.0, 2) is gate.update(0.0, 2) is True


class Scores(nn.Module):
    """Scores by one weight: sign(sum) as it is, so that it can be right or wrong on purpose."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.weight * x.flatten(1).mean(1)


def test_a_resting_discriminator_gets_no_gradient_and_the_generator_keeps_its_own():
    gate = AccuracyGate(0.7)
    adversary = Adversary(
        name="mask", discriminator=Scores(), objective=build_objective("Hinge"), presenter=None, gate=gate
    )
    logits = torch.full((3, 2, 2), -1.0, requires_grad=True)
    pair = RealFakePair(
        torch.ones(3, 1, 2, 2),
        logits[:, None],
        MaskSamples(logits, torch.ones(3, 2, 2), torch.ones(3).bool(), torch.zeros(3), torch.zeros(3, 5)),
    )
    gradients = []
    for iteration in range(10):
        adversary.zero_grad()
        with EventStorage(iteration):
            adversary.discriminator_losses(pair)["loss_disc_mask"].backward()
            # fakes of -1 lie on the margin; a smaller weight lets both sides pull
            assert torch.autograd.grad(adversary.generator_losses(pair)["loss_adv_mask"], logits)[0].abs().sum() > 0
        gradients.append(adversary.discriminator.weight.grad.item())
        adversary.discriminator.weight.data.fill_(0.5)
    # always right, so the mean is 1 - 0.5 * 0.9^n, which passes 0.7 with the fifth
    assert [bool(gradient) for gradient in gradients[1:]] == [True] * 3 + [False] * 6
