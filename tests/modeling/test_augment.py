"""What augmentation does to a sample, read off samples on which each policy leaves a trace."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.presenters import DiscriminatorAugment, cut_out, flip, translate
from gan_plugin.modeling.samples import MaskSamples, RealFakePair

SIDE = 16


@pytest.fixture(autouse=True)
def fixed_draws():
    torch.manual_seed(0)


def test_translation_moves_by_up_to_an_eighth_and_background_moves_in():
    """The value of each pixel tells where it was."""
    position = torch.arange(1.0, SIDE * SIDE + 1).view(1, 1, SIDE, SIDE).repeat(400, 1, 1, 1)
    shifts = set()
    for moved in translate(position)[:, 0]:
        rows, columns = torch.nonzero(moved, as_tuple=True)
        origin = moved[rows, columns].long() - 1
        dy, dx = (rows - origin // SIDE).unique(), (columns - origin % SIDE).unique()
        assert len(dy) == len(dx) == 1
        shifts.add((dy.item(), dx.item()))
        assert len(rows) == (SIDE - abs(dy.item())) * (SIDE - abs(dx.item()))
    assert shifts == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    uncovered = DiscriminatorAugment("translation", background=-1.0)(torch.full((50, 2, SIDE, SIDE), 3.0))
    assert set(uncovered.unique().tolist()) == {-1.0, 3.0}


@pytest.mark.parametrize("side", [16, 7, 6])
def test_cutout_removes_one_square_of_half_the_side(side):
    hole = round(side / 2)
    holes = cut_out(torch.ones(300, 2, side, side)) == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    whole, spans = 0, (set(), set())
    for gone in holes[:, 0]:
        rows, columns = gone.any(1).nonzero().flatten(), gone.any(0).nonzero().flatten()
        height, width = (int(line[-1] - line[0] + 1) for line in (rows, columns))
        assert gone.sum() == height * width == len(rows) * len(columns)
        # only the border of the sample makes it smaller
        assert height == hole or rows[0] == 0 or rows[-1] == side - 1
        assert width == hole or columns[0] == 0 or columns[-1] == side - 1
        assert max(height, width) <= hole
        whole += height == width == hole
        for span, line in zip(spans, (rows, columns), strict=True):
            span.add((int(line[0]), int(line[-1])))
    assert whole > 50
    # its centre is any pixel, or of an even hole any corner of one, so that at least half of it lies inside
    starts = range(-(hole // 2), side + 1 - hole % 2 - hole // 2)
    assert spans == ({(max(0, at), min(side, at + hole) - 1) for at in starts},) * 2


def test_flip_mirrors_half_of_the_samples():
    samples = torch.arange(4.0).repeat(2000, 1, 4, 1)
    flipped = flip(samples)
    mirrored = (flipped == samples.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], samples[~mirrored])
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_noise_has_its_deviation_and_leaves_no_trace_when_off():
    samples = torch.full((50, 1, 40, 40), 2.0)
    noise = DiscriminatorAugment(noise=0.3)(samples) - samples
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    assert DiscriminatorAugment()(samples) is samples


def test_gradient_flows_to_what_is_still_seen():
    samples = torch.rand(20, 1, SIDE, SIDE, requires_grad=True)
    augmented = DiscriminatorAugment(" translation, cutout,flip", noise=0.1, background=-5.0)(samples)
    augmented.sum().backward()
    per_sample = samples.grad.flatten(1).sum(1)
    assert set(samples.grad.unique().tolist()) == {0.0, 1.0}
    assert (per_sample > 0).all() and (per_sample < SIDE**2).any()


def test_pairs_get_the_same_draws_but_noise_of_their_own():
    augment = DiscriminatorAugment("translation,cutout,flip", background=-1.0)
    samples = torch.rand(30, 2, SIDE, SIDE)
    real, fake = augment.alike(samples, samples.clone())
    assert torch.equal(real, fake) and not torch.equal(real, samples)
    assert not torch.equal(augment(samples), augment(samples))
    noisy = DiscriminatorAugment(noise=1.0).alike(samples, samples)
    assert not torch.equal(*noisy)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_perfect_prediction_is_no_distance_from_the_truth(player):
    """Features of a pair compare only if both were augmented alike."""

    class Features(torch.nn.Module):
        def forward(self, x):
            return (x.flatten(1),)

    adversary = Adversary(
        name="mask",
        discriminator=Features(),
        objective=build_objective("MultiLayerL1"),
        presenter=None,
        augment=DiscriminatorAugment("translation,cutout,flip"),
        balance=None,
    )
    adversary.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    masks = torch.rand(8, SIDE, SIDE)
    samples = MaskSamples(masks, masks, torch.ones(8).bool(), torch.zeros(8), torch.zeros(8, 5))
    pair = RealFakePair(masks[:, None], masks[:, None].clone(), samples)
    with EventStorage(0):
        losses = adversary.generator_losses(pair) if player == "generator" else adversary.discriminator_losses(pair)
    assert [loss.item() for loss in losses.values()] == [0]


def test_no_samples_and_an_unknown_policy():
    assert DiscriminatorAugment("cutout,flip", noise=1.0)(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)
    with pytest.raises(UserError, match="MODEL.GAN.DIFFAUG is 'flip,blur'.*'blur'.*translation, cutout, flip, colour"):
        DiscriminatorAugment("flip,blur")


def test_colour_changes_the_first_three_channels_of_each_sample_by_formula(monkeypatch):
    samples = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    # brightness 0.75, saturation 0.5, contrast 1.0 for both samples
    draws = torch.tensor([0.75, 0.5, 1.0]).view(3, 1, 1, 1, 1).expand(3, 2, 1, 1, 1)
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: draws)
    out = DiscriminatorAugment("colour", background=0.3)(samples)
    monkeypatch.undo()
    expected = samples[:, :3] + 0.25
    mean = expected.mean(dim=(1, 2, 3), keepdim=True)
    # a saturation of twice 0.5 leaves the colours alone; a contrast of 0.5 + 1.0 stretches them about the mean
    torch.testing.assert_close(out[:, :3], (expected - mean) * 1.5 + mean)
    assert torch.equal(out[:, 3], samples[:, 3])


def test_the_ground_that_an_augmentation_uncovers_may_be_a_colour():
    green = torch.tensor([-0.6, 1.0, -0.6]).view(1, 3, 1, 1)
    samples = green.expand(6, 3, 16, 16)
    torch.testing.assert_close(DiscriminatorAugment("translation,cutout", background=green)(samples), samples)
