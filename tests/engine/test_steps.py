"""The two-optimizer step against the same step written out by hand."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import FEATURES, small

from gan_plugin.engine.check_config import NonFiniteLossError
from gan_plugin.engine.optimizers import (
    build_discriminator_optimizer,
    build_discriminator_scheduler,
    build_generator_optimizer,
)
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.modeling.meta_arch import discriminator_parameters


def players(cfg, model):
    disc = discriminator_parameters(model)
    return build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_every_parameter_has_exactly_one_optimizer(tiny_cfg, kind):
    tiny_cfg.SOLVER.OPTIMIZER = kind
    model = build_model(tiny_cfg)
    groups = [[p for g in optimizer.param_groups for p in g["params"]] for optimizer in players(tiny_cfg, model)]
    ids = [[id(p) for p in group] for group in groups]
    assert sorted(ids[0] + ids[1]) == sorted(id(p) for p in model.parameters())
    assert set(ids[1]) == {id(p) for p in discriminator_parameters(model)}
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("order", ["thesis", "paper"])
def test_alternating_step_is_the_algorithm(tiny_cfg, inputs, order):
    """Hard labels and no noise, so that the hand-written step needs no random numbers but the proposals' sampling."""
    tiny_cfg.MODEL.GAN.BALANCE.SHARE = 0.0
    tiny_cfg.SOLVER.OPTIMIZER = "sgd"
    tiny_cfg.SOLVER.DISC.OPTIMIZER = "sgd"
    tiny_cfg.SOLVER.DISC.BASE_LR = 0.5
    labels = tiny_cfg.MODEL.GAN.LABELS
    labels.REAL, labels.FAKE, labels.FLIP_PROB = (1.0, 1.0), (0.0, 0.0), 0.0
    torch.manual_seed(0)
    ours = build_model(tiny_cfg).train()
    theirs = copy.deepcopy(ours)

    step = AlternatingStep(ours, [inputs], *players(tiny_cfg, ours), order)
    step.iter = 0
    torch.manual_seed(1)
    with EventStorage(0):
        step.run_step()

    generator, discriminator = players(tiny_cfg, theirs)
    adversary = theirs.adversaries["mask"]
    torch.manual_seed(1)
    with EventStorage(0):
        losses, pairs = theirs.generator_forward(inputs)
    samples = pairs["mask"].samples
    show = lambda masks: torch.nn.functional.interpolate(masks[:, None], size=32, mode="bilinear") * 2 - 1  # noqa: E731
    judge = lambda masks: adversary.discriminator(show(masks)).sigmoid()  # noqa: E731

    def adversarial():
        probabilities = samples.logits.sigmoid()
        matched = (probabilities - samples.truth)[samples.matched].abs()
        rec = matched.mean() * adversary.rec_weight if matched.numel() else 0
        return -judge(probabilities).log().mean() * adversary.weight + rec

    def discriminate():
        fake = samples.logits.detach().sigmoid()
        return -judge(samples.truth).log().mean() - (1 - judge(fake)).log().mean()

    if order == "thesis":
        discriminate().backward()
        discriminator.step()
        generator.zero_grad()
        (sum(losses.values()) + adversarial()).backward()
        generator.step()
    else:
        g = torch.autograd.grad(
            sum(losses.values()) + adversarial(),
            [p for group in generator.param_groups for p in group["params"]],
            allow_unused=True,
        )
        discriminate().backward()
        discriminator.step()
        for p, grad in zip((p for group in generator.param_groups for p in group["params"]), g, strict=True):
            p.grad = grad
        generator.step()

    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_orders_differ(tiny_cfg, inputs):
    results = []
    for order in ("thesis", "paper"):
        torch.manual_seed(0)
        model = build_model(tiny_cfg).train()
        step = AlternatingStep(model, [inputs], *players(tiny_cfg, model), order)
        step.iter = 0
        with EventStorage(0):
            step.run_step()
        results.append(model.roi_heads.mask_head.predictor.weight.detach())
    assert not torch.equal(*results)


def _after_two_steps(cfg, inputs, asked_once):
    """Every tensor of the model after two steps, and how often an iteration asked its mask discriminator."""
    torch.manual_seed(0)
    model = build_model(cfg).train()
    if not asked_once:
        model.asked_once = lambda pairs: pairs
    gan, data = cfg.MODEL.GAN, [inputs, inputs]
    if gan.MODE == "joint":
        step = JointStep(model, data, build_generator_optimizer(cfg, model))
    else:
        step = AlternatingStep(model, data, *players(cfg, model), gan.ORDER, gan.DISC_STEPS)
    calls = []
    discriminator = model.adversaries["mask"].discriminator
    discriminator.register_forward_hook(lambda *_: calls.append(1))
    with EventStorage(0) as storage:
        for step.iter in range(2):
            step.run_step()
            storage.step()
    return model.state_dict(), len(calls) / 2


@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize(
    ("mode", "order", "steps", "asked", "asked_apart"),
    [
        ("joint", "paper", 1, 2, 4),
        ("alternating", "paper", 1, 2, 4),
        ("alternating", "paper", 3, 6, 8),
        ("alternating", "thesis", 1, 4, 4),
    ],
)
def test_one_pass_serves_both_players_of_a_zero_sum_game(
    tiny_cfg, inputs, share, mode, order, steps, asked, asked_apart
):
    cfg = small(tiny_cfg, FEATURES)
    gan = cfg.MODEL.GAN
    # whose running statistics tell in which order it was asked
    gan.MASK.NORM = "BN"
    gan.BALANCE.SHARE, gan.MODE, gan.ORDER, gan.DISC_STEPS = share, mode, order, steps
    # plain descent, since Adam's first steps are of one size whatever the gradient
    cfg.SOLVER.OPTIMIZER = cfg.SOLVER.DISC.OPTIMIZER = "sgd"
    cfg.SOLVER.DISC.BASE_LR = 0.5
    once, calls = _after_two_steps(cfg, inputs, True)
    apart, calls_apart = _after_two_steps(cfg, inputs, False)
    assert (calls, calls_apart) == (asked, asked_apart)
    for name, value in once.items():
        torch.testing.assert_close(
            value, apart[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("loss", ["loss_mask", "loss_adv_mask", "loss_disc_mask"])
def test_a_loss_that_is_not_finite_never_reaches_the_generator(tiny_cfg, inputs, mode, loss, monkeypatch):
    model = build_model(tiny_cfg).train()
    if mode == "joint":
        step = JointStep(model, [inputs], build_generator_optimizer(tiny_cfg, model))
    else:
        step = AlternatingStep(model, [inputs], *players(tiny_cfg, model))
    step.iter = 41
    source = {
        "loss_mask": "generator_forward",
        "loss_adv_mask": "adversarial_losses",
        "loss_disc_mask": "discriminator_losses",
    }
    original = getattr(model, source[loss])

    def spoiled(argument):
        result = original(argument)
        losses = result[0] if isinstance(result, tuple) else result
        losses[loss] = losses[loss] * float("nan")
        return result

    monkeypatch.setattr(model, source[loss], spoiled)
    before = copy.deepcopy(model.state_dict())
    with EventStorage(41), pytest.raises(NonFiniteLossError, match=f"iteration 41: {loss} is nan"):
        step.run_step()
    after = model.state_dict()
    generators = [name for name, _ in model.named_parameters() if not name.startswith("adversaries.")]
    assert all(torch.equal(after[name], before[name]) for name in generators)


def test_before_the_start_the_discriminator_rests(tiny_cfg, inputs):
    tiny_cfg.MODEL.GAN.START_ITER = 5
    model = build_model(tiny_cfg).train()
    before = [p.detach().clone() for p in discriminator_parameters(model)]
    step = AlternatingStep(model, [inputs], *players(tiny_cfg, model))
    step.iter = 0
    with EventStorage(0):
        step.run_step()
    assert all(torch.equal(a, b) for a, b in zip(before, discriminator_parameters(model), strict=True))
    assert not step.disc_optimizer.state


def test_a_discriminator_behind_a_closed_gate_rests_while_the_other_learns(tiny_cfg, inputs):
    tiny_cfg.MODEL.GAN.BOX.ENABLED, tiny_cfg.MODEL.ROI_HEADS.NAME = True, "AdversarialROIHeads"
    tiny_cfg.SOLVER.DISC.WEIGHT_DECAY = 0.1
    tiny_cfg.MODEL.GAN.GATE_ACCURACY = 0.99
    model = build_model(tiny_cfg).train()
    model.adversaries["mask"].gate.limit = -1.0
    before = {name: p.detach().clone() for name, p in model.adversaries.named_parameters()}
    step = AlternatingStep(model, [inputs] * 2, *players(tiny_cfg, model))
    with EventStorage(0):
        for step.iter in range(2):
            step.run_step()
    moved = {name.split(".")[0] for name, p in model.adversaries.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"box"}


def test_schedules_constant_and_follow(tiny_cfg):
    solver = tiny_cfg.SOLVER
    solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS, solver.DISC.BASE_LR = 10, (5,), 0, 0.1
    for schedule, expected in (("constant", [0.1] * 10), ("follow", [0.1] * 5 + [0.01] * 5)):
        solver.DISC.SCHEDULE = schedule
        optimizer = build_discriminator_optimizer(tiny_cfg, [torch.nn.Parameter(torch.zeros(1))])
        scheduler = build_discriminator_scheduler(tiny_cfg, optimizer)
        rates = []
        for _ in range(10):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        assert rates == pytest.approx(expected)
