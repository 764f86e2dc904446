"""What differs on a GPU, on the GPU if there is one and else on the CPU: `tools/gpu_check.py` runs this file."""

import itertools

import pytest
import torch
from detectron2.utils.events import EventStorage
from one_game import CROPS, NoNormGame
from small_models import BOTH_PLAYERS, FEATURES, build, losses_of, small
from torch import nn

from gan_plugin.compat import fused_adam
from gan_plugin.engine.image_game import ImageStep
from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.steps import AlternatingStep, JointStep, mixed_precision
from gan_plugin.layers.double_backward import CheapDoubleBackward
from gan_plugin.modeling.meta_arch import discriminator_parameters

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 2
on_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU")


def make_step(cfg, inputs, order):
    cfg.MODEL.DEVICE = DEVICE
    model = build(cfg)
    data, disc = itertools.repeat(inputs), discriminator_parameters(model)
    if order == "joint":
        return JointStep(model, data, build_generator_optimizer(cfg, model), amp=True)
    optimizers = build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)
    return AlternatingStep(model, data, *optimizers, order, 2, amp=True)


@pytest.mark.parametrize("order", ["joint", "thesis", "paper"])
@pytest.mark.parametrize("sight", [{}, FEATURES], ids=["pixels", "features"])
def test_both_players_learn_in_mixed_precision_once_the_game_begins(tiny_cfg, make_inputs, order, sight):
    """float16 with a scale on a GPU, which may have to fall first; bfloat16 on a CPU."""
    late = {"MODEL.GAN.START_ITER": 1, "MODEL.GAN.REG.R1_GAMMA": 0.1 if not sight else 0.0}
    step = make_step(small(tiny_cfg, BOTH_PLAYERS, sight, late), make_inputs(2, side=64), order)
    assert step.grad_scaler.is_enabled() == (DEVICE == "cuda")
    before = {name: p.detach().clone() for name, p in step.model.named_parameters()}
    with EventStorage(0) as storage:
        for step.iter in range(24 if DEVICE == "cuda" else STEPS):
            step.run_step()
            storage.step()
            if step.iter == 0:
                assert not moved(step.model, before) & {"adversaries"}
    assert moved(step.model, before) >= {"backbone", "roi_heads", "adversaries"}
    assert all(bool(p.isfinite().all()) for p in step.model.parameters())


def moved(model, before):
    return {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_mixed_precision_is_near_single_precision(tiny_cfg, make_inputs):
    cfg = small(tiny_cfg, BOTH_PLAYERS)
    cfg.MODEL.DEVICE = DEVICE
    labels = cfg.MODEL.GAN.LABELS
    labels.REAL, labels.FAKE, labels.FLIP_PROB = (1.0, 1.0), (0.0, 0.0), 0.0
    inputs = make_inputs(2, side=64)
    exact = losses_of(build(cfg), inputs)
    half = torch.float16 if DEVICE == "cuda" else torch.bfloat16
    with torch.autocast(DEVICE, half):
        mixed = losses_of(build(cfg), inputs)
    for name, loss in exact.items():
        torch.testing.assert_close(mixed[name].float(), loss, rtol=0.1, atol=0.05, msg=name)


def test_a_cpu_without_bfloat16_computes_in_float32(monkeypatch, caplog):
    model = nn.Linear(1, 1)
    for capability, expected in (("AVX2", False), ("AVX512", True)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda found=capability: found)
        assert mixed_precision(True, model) == expected and not mixed_precision(False, model)
    assert caplog.text.count("Mixed precision is left off") == 1


@pytest.mark.parametrize("order", ["alternating", "simultaneous"])
def test_an_image_game_learns_in_mixed_precision(order):
    from car_gan.config import load_config
    from car_gan.networks.build import Networks

    torch.manual_seed(0)
    options = f"MODEL.DEVICE {DEVICE} SOLVER.ORDER {order} MODEL.LOGAN.ENABLED True MODEL.GAN.REG.R1_GAMMA 1.0"
    generator = nn.Sequential(nn.Linear(4, 192), nn.Unflatten(1, (3, 8, 8)), nn.Tanh())
    judge = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(128, 1), nn.Flatten(0))
    game = NoNormGame(load_config("", options.split()), Networks(generator, judge, None)).to(DEVICE)
    before = {name: p.detach().clone() for name, p in game.named_parameters()}
    step = ImageStep(game, list(game.phases()), itertools.repeat(list(CROPS[:4])), accumulate=1, amp=True)
    with EventStorage(0) as storage:
        for step.iter in range(STEPS):
            step.run_step()
            storage.step()
    assert moved(game, before) == {"generator", "discriminator"}
    assert all(bool(p.isfinite().all()) for p in game.parameters())


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("norm", [nn.Identity, lambda: nn.BatchNorm2d(6)], ids=["convolutions", "batch norm"])
def test_second_derivatives_are_pytorchs(last, norm):
    """In double precision, so that the order of sums does not matter."""
    torch.manual_seed(0)
    order = torch.channels_last if last else torch.contiguous_format
    layers = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), norm(), nn.Tanh(), nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.Tanh())
    layers = layers.to(DEVICE, torch.double, memory_format=order)
    at = torch.randn(3, 4, 8, 8, dtype=torch.double).to(DEVICE, memory_format=order).requires_grad_()
    results = []
    for cheap in (True, False):
        with CheapDoubleBackward() if cheap else torch.enable_grad():
            out = layers(at).square().sum()
        (slope,) = torch.autograd.grad(out, at, create_graph=True)
        results.append([slope, *torch.autograd.grad(slope.square().sum(), list(layers.parameters()))])
    torch.testing.assert_close(*results)


def test_channels_last_steps_are_the_same():
    """Fused Adam goes through memory without a look at strides."""
    weights = []
    for order in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Conv2d(8, 4, 3)).double()
        network = network.to(DEVICE, memory_format=order)
        optimizer = fused_adam(torch.optim.Adam, network.parameters(), lr=0.01)
        at = torch.randn(2, 3, 9, 9, dtype=torch.double).to(DEVICE, memory_format=order)
        for _ in range(STEPS):
            optimizer.zero_grad()
            network(at).square().sum().backward()
            optimizer.step()
        weights.append([p.detach().contiguous() for p in network.parameters()])
    torch.testing.assert_close(*weights)


@on_gpu
def test_a_compiled_discriminator_gives_the_same_losses(tiny_cfg, make_inputs):
    """By the real code generator; tests/modeling/test_compile.py does without."""
    tiny_cfg.MODEL.DEVICE = DEVICE
    results = []
    for switch in (False, True):
        tiny_cfg.MODEL.GAN.COMPILE = switch
        losses = losses_of(build(tiny_cfg), make_inputs())
        sum(losses.values()).backward()
        results.append(losses)
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)
