"""The game of masks: its optimizers, its regularisers, and that it learns."""

import pytest
import torch
from coigan.config import load_config
from coigan.engine.shapes import ShapeGame
from detectron2.utils.events import EventStorage

SMALL = [
    *("DEVICE", "cpu", "INPUT.SIZE", "16", "SHAPES.STYLE_SIZE", "8", "SHAPES.MAPPING_LAYERS", "2"),
    *("SHAPES.WIDTH", "8", "MODEL.DISCRIMINATOR.WIDTH", "8"),
]


def make_game(*options):
    torch.manual_seed(0)
    return ShapeGame(load_config("", [*SMALL, *options]), torch.device("cpu"))


def discs(count):
    """Masks of discs anywhere."""
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    centres = torch.randint(4, 12, (count, 2))
    return [{"image": (((rows - y) ** 2 + (columns - x) ** 2) < 12).float()[None]} for y, x in centres.tolist()]


def test_rates_make_up_for_lazy_regularisation():
    phases = {phase.name: phase for phase in make_game().phases()}
    generator, judge = (phases[name].optimizer.defaults for name in ("generator", "discriminator"))
    assert generator["lr"] == pytest.approx(0.002 * 4 / 5) and generator["betas"] == (0.0, 0.99 ** (4 / 5))
    assert judge["lr"] == pytest.approx(0.002 * 16 / 17) and judge["betas"] == (0.0, 0.99 ** (16 / 17))
    assert (phases["discriminator_r1"].every, phases["discriminator_r1"].gain) == (16, 16)
    assert (phases["path_length"].every, phases["path_length"].gain) == (4, 4)


def test_r1_is_half_gamma_times_the_squared_slope():
    game = make_game()
    real = game.collate(discs(3))
    assert real.min() == -1 and real.max() == 1
    point = real.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(game.discriminator(point).sum(), point)
    expected = 10 / 2 * slope.flatten(1).square().sum(1).mean()
    torch.testing.assert_close(game._r1(real)["loss_disc_r1"], expected, rtol=1e-4, atol=1e-5)


def test_phases_move_their_player_and_pictures_repeat():
    game = make_game("SHAPES.SOURCE", "base")
    assert game.channels == 3
    real = torch.rand(4, 3, 16, 16) * 2 - 1
    with EventStorage(0) as storage:
        for phase in game.phases():
            game.zero_grad()
            sum(phase.losses(real).values()).backward()
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in phase.parameters()), phase.name
        assert "gan/image/diversity" in storage.latest()
    with torch.no_grad():
        first = game.picture()
    assert first.shape == (3, 8 * 18 + 2, 8 * 18 + 2)


def test_it_learns_how_much_a_mask_covers():
    """From blank noise to masks whose mean coverage is near the truth."""
    game = make_game("SHAPES.LR", "0.01", "SHAPES.R1", "1.0")
    phases = list(game.phases())
    with EventStorage(0):
        for iteration in range(150):
            real = game.collate(discs(8))
            for phase in phases:
                if phase.is_due(iteration):
                    phase.optimizer.zero_grad()
                    (sum(phase.losses(real).values()) * phase.gain).backward()
                    phase.optimizer.step()
    with torch.no_grad():
        drawn = game.generator(torch.randn(64, 8))
    truth = game.collate(discs(64)).mean()
    assert abs(drawn.clamp(-1, 1).mean() - truth) < 0.25
