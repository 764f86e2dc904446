"""How hard the game pulls: a share of the head's own gradient, and the discriminator that has to rest."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from detectron2.utils.events import EventStorage
from foreign_models import KINDS, foreign_cfg
from small_models import AGNOSTIC, BOTH_PLAYERS, CASCADE, POINT_REND, build, losses_of, small
from torch import nn

from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.meta_arch import discriminator_parameters
from gan_plugin.modeling.objectives import OBJECTIVE_REGISTRY, build_objective
from gan_plugin.modeling.samples import MaskSamples, RealFakePair
from gan_plugin.modeling.stability import AccuracyGate, GradientShare


@pytest.fixture
def samples():
    """Five masks of two classes, and the cross entropy that a mask head would have of them."""
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(5, 2, 6, 6, generator=generator).requires_grad_(True)
    truth = (torch.rand(5, 6, 6, generator=generator) > 0.5).float()
    classes = torch.tensor([0, 1, 1, 0, 1])
    logits = output[torch.arange(5), classes]
    loss = nn.functional.binary_cross_entropy_with_logits(logits, truth)
    return MaskSamples(logits, truth, torch.ones(5).bool(), classes, torch.zeros(5, 5), (), loss, output)


def pull_of(losses, at):
    return torch.autograd.grad(sum(losses.values()), at, retain_graph=True)[0]


@pytest.mark.parametrize("objective", sorted(name for name, _ in OBJECTIVE_REGISTRY))
@pytest.mark.parametrize("matching", ["proposal", "greedy"])
def test_all_terms_of_a_player_pull_by_the_share_of_its_own_loss(tiny_cfg, make_inputs, objective, matching):
    """The heads' own gradients in closed form. In the second of four iterations of the ramp it is half of the share.
    Absolute weights pull in the same direction, with the same ratio between the terms. No mask has an IoU of 1."""
    keys = {
        **BOTH_PLAYERS,
        "MODEL.GAN.MASK.OBJECTIVE": objective,
        "MODEL.GAN.BOX.OBJECTIVE": objective,
        "MODEL.GAN.MASK.WEIGHT": 0.5,
        "MODEL.GAN.MASK.MATCHING": matching,
        "MODEL.GAN.MASK.MATCH_IOU": 1.0,
        "MODEL.GAN.WARMUP_ITERS": 4,
        "MODEL.GAN.BALANCE.MAX_FACTOR": math.inf,
    }
    found = {}
    for share in (0.3, 0.0):
        model = build(small(tiny_cfg, keys, {"MODEL.GAN.BALANCE.SHARE": share}))
        torch.manual_seed(1)
        with EventStorage(1) as storage:
            pairs = model.generator_forward(make_inputs(1, side=64))[1]
            found[share] = pairs, model.adversarial_losses(pairs), storage.latest()
    for player in ("mask", "box"):
        pulls, values = {}, {}
        for share, (pairs, losses, _) in found.items():
            values[share] = {name: loss for name, loss in losses.items() if name.endswith(player)}
            pulls[share] = pull_of(values[share], pairs[player].samples.drawn)
        samples, factor = found[0.3][0][player].samples, found[0.3][2][f"gan/{player}/balance"][0]
        assert pulls[0.3].norm().item() == pytest.approx(0.15 * own_pull(samples), rel=1e-4)
        # the recorded factor is that without the ramp, which both have
        torch.testing.assert_close(
            pulls[0.3], pulls[0.0] * factor, rtol=1e-3, atol=1e-4 * pulls[0.3].abs().max().item()
        )
        assert len(values[0.3]) == (2 if player == "mask" else 1)
        for name, value in values[0.3].items():
            assert value.item() == pytest.approx(values[0.0][name].item() * factor, rel=1e-4)
    assert found[0.3][0]["mask"].samples.matched.any() == (matching == "proposal")


def test_the_mask_loss_once_more_is_a_heavier_mask_loss(tiny_cfg, make_inputs):
    """The control of a comparison: 1.3 times loss_mask's gradient, in every parameter."""
    keys = {"MODEL.GAN.MASK.WEIGHT": 0.0, "MODEL.GAN.MASK.REC_WEIGHT": 1.0, "MODEL.GAN.MASK.REC_LOSS": "bce"}
    model = build(small(tiny_cfg, keys, {"MODEL.GAN.BALANCE.SHARE": 0.3}))
    with EventStorage(0):
        losses = model(make_inputs(1, side=64))
    shared = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("adversaries.")]
    own = torch.autograd.grad(losses["loss_mask"], shared, retain_graph=True, allow_unused=True)
    more = torch.autograd.grad(losses["loss_rec_mask"] + losses["loss_adv_mask"], shared, allow_unused=True)
    pairs = [(a, b) for a, b in zip(own, more, strict=True) if a is not None]
    assert len(pairs) > 10
    for a, b in pairs:
        torch.testing.assert_close(b, 0.3 * a, rtol=1e-3, atol=1e-5 * a.abs().max().item())


def own_pull(samples):
    """|d loss_mask / d logits|, cross entropy's; or |d loss_box_reg / d deltas|, where each of four counts alike."""
    if isinstance(samples, MaskSamples):
        return ((samples.logits.sigmoid() - samples.truth).norm() / samples.logits.numel()).item()
    return math.sqrt(4 * len(samples)) / len(samples.output)


def test_the_factor_has_a_limit_and_no_pull_has_none(samples):
    scores = samples.logits.mean()
    losses, factor = GradientShare(0.1, max_factor=50.0)({"tiny": 1e-7 * scores, "none": samples.zero()}, samples)
    assert factor.item() == 50 and not factor.requires_grad and losses["none"].item() == 0
    torch.testing.assert_close(pull_of(losses, samples.logits), torch.full((5, 6, 6), 50e-7 / 180), rtol=1e-4, atol=0)

    losses, factor = GradientShare()({"none": scores.detach() + samples.zero()}, samples)
    assert factor.item() == 0 and losses["none"].item() == 0
    assert not pull_of(losses, samples.logits).any()


def test_a_pull_that_overflows_is_left_out_and_a_bad_value_is_shown(samples):
    """The square root has an infinite slope at 0, and no value to be seen in it."""
    overflow = (samples.logits - samples.logits.detach()).abs().sqrt().sum()
    losses, factor = GradientShare()({"overflow": overflow, "bad": samples.logits.sum() * math.inf}, samples)
    assert factor.item() == 0 and not pull_of({"": losses["overflow"]}, samples.logits).any()
    assert losses["overflow"].item() == 0 and not losses["bad"].isfinite()


def test_half_precision_keeps_the_share(samples):
    """Gradients of 1e-8 are nothing in float16; a GradScaler's scale brings them through."""
    logits = samples.logits.detach().half().requires_grad_(True)
    output = logits * 1
    loss = nn.functional.binary_cross_entropy_with_logits(output.float(), samples.truth)
    half = replace(samples, logits=output, output=output, loss=loss * 1e-4)
    losses, factor = GradientShare(0.1)({"": 1e-6 * output.float().square().mean()}, half)
    (pull,) = torch.autograd.grad(sum(losses.values()) * 2.0**16, logits)
    own = 1e-4 * ((output.float().sigmoid() - samples.truth).norm() / 180).item()
    assert factor.item() > 0 and pull.dtype == torch.float16
    assert pull.float().norm().item() / 2**16 == pytest.approx(0.1 * own, rel=2e-2)


def test_samples_without_a_loss_to_compare_with_are_refused(samples):
    with pytest.raises(UserError, match="MODEL.GAN.BALANCE.SHARE needs samples that bring the head's own loss"):
        GradientShare()({"": samples.logits.sum()}, replace(samples, loss=None))


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
        name="mask",
        discriminator=Scores(),
        objective=build_objective("Hinge"),
        presenter=None,
        gate=gate,
        balance=None,
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


def gradients_of(model, losses):
    model.zero_grad()
    sum(losses.values()).backward(retain_graph=True)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None and "adversaries" not in name}


@pytest.mark.parametrize("share", [0.1, 0.0])
@pytest.mark.parametrize("changes", [{}, CASCADE, POINT_REND, AGNOSTIC], ids=["plain", "cascade", "points", "agnostic"])
def test_a_reach_of_the_head_leaves_everything_else_to_the_models_own_losses(tiny_cfg, make_inputs, changes, share):
    """Bit for bit; the head itself gets what it gets with a reach of all."""
    found = {}
    for name, keys in (
        ("plain", {"MODEL.GAN.ENABLED": False}),
        ("all", {}),
        ("head", {"MODEL.GAN.MASK.REACH": "head"}),
    ):
        model = build(small(tiny_cfg, changes, {"MODEL.GAN.BALANCE.SHARE": share}, keys))
        losses = losses_of(model, make_inputs(1, side=64))
        found[name] = gradients_of(model, losses)
        if name == "head":
            for loss in ("loss_adv_mask", "loss_rec_mask"):
                pulled = {n for n, g in gradients_of(model, {loss: losses[loss]}).items() if g.any()}
                assert pulled and all(n.startswith("roi_heads.mask_head.") for n in pulled)
    assert found["head"].keys() == found["plain"].keys()
    for name, gradient in found["head"].items():
        if name.startswith("roi_heads.mask_head."):
            scale = found["all"][name].abs().max().item()
            torch.testing.assert_close(gradient, found["all"][name], rtol=1e-4, atol=1e-5 * scale, msg=name)
        else:
            assert torch.equal(gradient, found["plain"][name]), name
    changed = [n for n, g in found["all"].items() if not torch.equal(g, found["plain"][n])]
    assert {"backbone.fpn_lateral2.weight"} < set(changed)


@pytest.mark.parametrize("order", ["thesis", "paper"])
def test_a_reach_of_the_head_in_turns_and_in_mixed_precision(tiny_cfg, make_inputs, order):
    keys = {"MODEL.GAN.MODE": "alternating", "MODEL.GAN.MASK.REACH": "head"}
    moved = {}
    for name, more in (("plain", {"MODEL.GAN.ENABLED": False}), ("head", keys)):
        cfg = small(tiny_cfg, more)
        model = build(cfg)
        before = copy.deepcopy(model.state_dict())
        batches = itertools.cycle([make_inputs(1, side=64)])
        players = discriminator_parameters(model)
        optimizer = torch.optim.SGD([p for p in model.parameters() if all(p is not q for q in players)], 0.1)
        if players:
            step = AlternatingStep(model, batches, optimizer, torch.optim.SGD(players, 0.1), order, amp=True)
        else:
            step = JointStep(model, batches, optimizer, amp=True)
        torch.manual_seed(1)
        with EventStorage(0):
            step.iter = 0
            step.run_step()
        moved[name] = {n: v - before[n] for n, v in model.state_dict().items() if "adversaries" not in n}
    assert moved["plain"].keys() == moved["head"].keys()
    differ = {name for name, step in moved["plain"].items() if not torch.equal(step, moved["head"][name])}
    assert differ and all(name.startswith("roi_heads.mask_head.") for name in differ)


def test_a_reach_of_the_head_needs_a_head_and_a_known_name(tiny_cfg):
    with pytest.raises(UserError, match="MODEL.GAN.MASK.REACH is 'body', which is unknown"):
        build(small(tiny_cfg, {"MODEL.GAN.MASK.REACH": "body"}))
    cfg = foreign_cfg(*KINDS["queries"], {"MODEL.GAN.MASK.REACH": "head"})
    with pytest.raises(UserError, match="MASK.REACH head is for models with RoI heads: SmallMaskFormer draws"):
        build(cfg)


def test_a_reach_of_the_head_without_objects_and_before_the_start(tiny_cfg, make_inputs):
    model = build(small(tiny_cfg, {"MODEL.GAN.MASK.REACH": "head", "MODEL.GAN.START_ITER": 1}))
    for inputs, iteration in ((make_inputs(1, instances=0, side=64), 1), (make_inputs(1, side=64), 0)):
        losses = losses_of(model, inputs, iteration)
        assert losses["loss_adv_mask"].item() == losses["loss_rec_mask"].item() == 0
        assert all(g.isfinite().all() for g in gradients_of(model, losses).values())


@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_a_discriminator_whose_verdict_counts_nothing_neither_judges_nor_learns(tiny_cfg, make_inputs, mode):
    """Its error still pulls, and the other discriminator plays on."""
    model = build(small(tiny_cfg, {**BOTH_PLAYERS, "MODEL.GAN.MODE": mode, "MODEL.GAN.MASK.WEIGHT": 0.0}))
    asked = []
    for name, adversary in model.adversaries.items():
        adversary.discriminator.register_forward_hook(lambda *_, name=name: asked.append(name))
    before, batches = copy.deepcopy(model.adversaries.state_dict()), itertools.cycle([make_inputs(1, side=64)])
    players = discriminator_parameters(model)
    of_generator = [p for p in model.parameters() if mode == "joint" or all(p is not q for q in players)]
    # which would move weights without a gradient too
    optimizer = torch.optim.AdamW(of_generator, 0.01, weight_decay=0.1)
    if mode == "joint":
        step = JointStep(model, batches, optimizer)
    else:
        step = AlternatingStep(model, batches, optimizer, torch.optim.AdamW(players, 0.01, weight_decay=0.1))
    with EventStorage(0) as storage:
        step.iter = 0
        step.run_step()
        found = {name: value for name, (value, _) in storage.latest().items()}
    moved = {
        name.split(".")[0] for name, v in model.adversaries.state_dict().items() if not torch.equal(v, before[name])
    }
    assert set(asked) == {"box"} == moved
    assert found["loss_rec_mask"] > 0 == found["loss_adv_mask"] == found["loss_disc_mask"]
    assert "gan/box/d_real" in found and "gan/mask/d_real" not in found and found["gan/mask/balance"] > 0
