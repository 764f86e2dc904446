"""Penalties in closed form, on discriminators whose gradient is known; spectral norms by singular values."""

import math

import pytest
import torch
from detectron2.utils.events import EventStorage
from small_models import BOTH_PLAYERS, FEATURES, build, losses_of, small
from torch import nn

from gan_plugin.engine.check_config import check_values
from gan_plugin.errors import UserError
from gan_plugin.modeling.discriminators import BoxFeatureDiscriminator, ProjectionMaskDiscriminator
from gan_plugin.modeling.stability import Regularizer, gradient_penalty, r1


def images(*values):
    """Samples of 1x2x2 pixels that all have the same value."""
    return torch.stack([torch.full((1, 2, 2), float(value)) for value in values])


class Slope(nn.Module):
    """D(x) = a * sum(x): the gradient is a in each of 4 pixels, its norm 2|a|."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(float(a)))

    def forward(self, x):
        return self.a * x.flatten(1).sum(1)


def test_penalties_of_a_linear_discriminator():
    judge = Slope(1.5)
    real, fake = images(0.3, -2), images(7, 1)
    penalty = r1(judge, real)
    assert penalty.item() == pytest.approx(3**2)
    # d/da (2a)^2 = 8a
    assert torch.autograd.grad(penalty, judge.a)[0].item() == pytest.approx(12)
    penalty = gradient_penalty(judge, real, fake)
    assert penalty.item() == pytest.approx((3 - 1) ** 2)
    # d/da (2a - 1)^2 = 4 (2a - 1)
    assert torch.autograd.grad(penalty, judge.a)[0].item() == pytest.approx(8)


def test_penalties_of_a_quadratic_discriminator():
    """D(x) = |x|^2 / 2 has the gradient x: R1 is the mean of |x|^2, and the slope between x and y is known as well."""

    def judge(x):
        return x.flatten(1).square().sum(1) / 2

    assert r1(judge, images(1, 3)).item() == pytest.approx((4 + 36) / 2)
    same = images(2, 2, 2)
    assert gradient_penalty(judge, same, same).item() == pytest.approx((4 - 1) ** 2)
    # |x| is 2u with u uniform in [0, 1]: the mean of (2u - 1)^2 is 1/3
    torch.manual_seed(0)
    many = images(*[1.0] * 20_000)
    assert gradient_penalty(judge, many, many * 0).item() == pytest.approx(1 / 3, abs=0.01)


def test_a_flat_discriminator_has_a_finite_gradient():
    judge = Slope(0)
    penalty = gradient_penalty(judge, images(1), images(0))
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    assert math.isfinite(torch.autograd.grad(penalty, judge.a)[0].item())


def test_lazy_penalties_count_as_often_as_they_are_left_out():
    regularizer = Regularizer(r1_gamma=10, gp_weight=3, every=4)
    assert [regularizer.is_due(i) for i in range(9)] == [True, False, False, False] * 2 + [True]
    assert not Regularizer(every=1).is_due(0)
    # gamma / 2 * |gradient|^2 and weight * (|gradient| - 1)^2
    assert regularizer(Slope(1), images(1), images(2)).item() == pytest.approx(4 * (5 * 4 + 3 * 1))


@pytest.mark.parametrize("values", [{"r1_gamma": -1}, {"gp_weight": -0.1}, {"every": 0}])
def test_impossible_values_name_their_key(values):
    with pytest.raises(UserError, match=f"MODEL.GAN.REG.{next(iter(values)).upper()} is"):
        Regularizer(**values)


def test_penalties_appear_when_due_and_reach_the_discriminators_alone(tiny_cfg, make_inputs):
    keys = {"MODEL.GAN.REG.R1_GAMMA": 1.0, "MODEL.GAN.REG.GP_WEIGHT": 1.0, "MODEL.GAN.REG.EVERY": 3}
    cfg = small(tiny_cfg, BOTH_PLAYERS, keys)
    model, inputs = build(cfg), make_inputs(1, side=64)
    assert not any("reg" in name.split("_") and "disc" in name for name in losses_of(model, inputs, iteration=4))
    losses = losses_of(model, inputs, iteration=6)
    for player in ("mask", "box"):
        model.zero_grad()
        losses[f"loss_disc_{player}_reg"].backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached and all(name.startswith(f"adversaries.{player}.discriminator.") for name in reached)
    empty = losses_of(model, make_inputs(1, instances=0, side=64), iteration=6)
    assert empty["loss_disc_mask_reg"] == empty["loss_disc_box_reg"] == 0


def test_what_cannot_be_differentiated_twice_is_refused(tiny_cfg):
    for change, key in (
        ({"MODEL.GAN.MASK.NORM": "SyncBN"}, "MODEL.GAN.MASK.NORM SyncBN"),
        (FEATURES, "MODEL.GAN.MASK.OBJECTIVE MultiLayerL1"),
    ):
        cfg = small(tiny_cfg, BOTH_PLAYERS, {"MODEL.GAN.REG.R1_GAMMA": 1.0}, change)
        check_values(cfg)
        with pytest.raises(UserError, match=key):
            build(cfg)


@pytest.mark.parametrize(
    "network, inputs",
    [
        (BoxFeatureDiscriminator, lambda: (torch.randn(2, 256, 7, 7),)),
        (
            lambda **options: ProjectionMaskDiscriminator(
                num_classes=3, input_size=16, channels=(8, 16, 8), norm="GN", **options
            ),
            lambda: (torch.randn(2, 1, 16, 16), torch.tensor([0, 2])),
        ),
    ],
)
def test_spectral_norm_makes_the_largest_singular_value_1(network, inputs):
    torch.manual_seed(0)
    free, held = network(spectral=False), network(spectral=True)
    for _ in range(60):
        held(*inputs())
    kinds = nn.Conv2d | nn.Embedding
    layers = [module for module in held.eval().modules() if isinstance(module, kinds)]
    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() for layer in layers]
    assert norms == pytest.approx([1.0] * len(norms), abs=0.01) and len(norms) >= 5
    before = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in free.modules() if isinstance(m, kinds)]
    assert all(abs(norm - 1) > 0.05 for norm in before)


def test_spectral_norm_by_its_key_holds_every_weight(tiny_cfg, make_inputs):
    model = build(small(tiny_cfg, BOTH_PLAYERS, {"MODEL.GAN.REG.SPECTRAL_NORM": True}))
    networks = [adversary.discriminator for adversary in model.adversaries.values()]
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert layers and all(nn.utils.parametrize.is_parametrized(layer, "weight") for layer in layers)
    # the generator's pass must not move the vectors that the power iteration keeps
    buffers = {name: value.clone() for name, value in model.adversaries.named_buffers()}
    with EventStorage(0):
        _, pairs = model.generator_forward(make_inputs(1, side=64))
        model.adversarial_losses(pairs)
    assert buffers and all(torch.equal(value, buffers[name]) for name, value in model.adversaries.named_buffers())
