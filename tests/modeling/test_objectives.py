"""The objectives of critics, of relativistic and of feature discriminators, in plain Python from their sources."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_plugin.modeling.objectives import build_objective

SCORES = st.lists(st.floats(-6, 6), min_size=1, max_size=5)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def cross_entropy(logit, label):
    return -(label * math.log(sigmoid(logit)) + (1 - label) * math.log(1 - sigmoid(logit)))


def tensors(*lists):
    return [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in lists]


def hinge(real, fake):
    return mean(max(0, 1 - r) for r in real) + mean(max(0, 1 + f) for f in fake), -mean(fake)


def wasserstein(real, fake):
    return mean(fake) - mean(real), -mean(fake)


def relativistic(real, fake, soft=1.0, low=0.0):
    above = [r - mean(fake) for r in real]
    below = [f - mean(real) for f in fake]
    of_disc = mean(cross_entropy(a, soft) for a in above) + mean(cross_entropy(b, low) for b in below)
    return of_disc, mean(cross_entropy(b, 1) for b in below) + mean(cross_entropy(a, 0) for a in above)


@pytest.mark.parametrize("name, formula", [("Hinge", hinge), ("Wasserstein", wasserstein)])
@given(real=SCORES, fake=SCORES)
def test_critics_are_their_formulas_and_know_no_labels(name, formula, real, fake):
    objective = build_objective(name)
    assert not objective.uses_labels
    (x, y), expected = tensors(real, fake), formula(real, fake)
    assert objective.discriminator_loss(x, y, None, None).item() == pytest.approx(expected[0], abs=1e-9)
    assert objective.generator_loss(y).item() == pytest.approx(expected[1], abs=1e-9)


@given(real=SCORES, fake=SCORES, soft=st.floats(0.7, 1.2), low=st.floats(0, 0.3))
def test_relativistic_average_is_its_formula(real, fake, soft, low):
    objective = build_objective("RelativisticAverage")
    (x, y), expected = tensors(real, fake), relativistic(real, fake, soft, low)
    loss = objective.discriminator_loss(x, y, torch.full_like(x, soft), torch.full_like(y, low))
    assert loss.item() == pytest.approx(expected[0], abs=1e-6)
    assert objective.generator_loss(y, x).item() == pytest.approx(expected[1], abs=1e-6)


def test_hinge_is_flat_beyond_the_margin():
    real, fake = tensors([2.0, 0.5, -3.0], [-2.0, 0.5])
    build_objective("Hinge").discriminator_loss(real, fake, None, None).backward()
    assert real.grad.tolist() == pytest.approx([0, -1 / 3, -1 / 3])
    assert fake.grad.tolist() == pytest.approx([0, 1 / 2])


@pytest.mark.parametrize("name", ["Hinge", "Wasserstein", "RelativisticAverage"])
def test_players_pull_against_each_other(name):
    objective = build_objective(name)
    real, fake = tensors([0.2, -0.4, 0.1], [0.3, -0.1, 0.2])
    objective.discriminator_loss(real, fake, torch.ones_like(real), torch.zeros_like(fake)).backward()
    assert (real.grad < 0).all() and (fake.grad > 0).all()
    (gradient,) = torch.autograd.grad(objective.generator_loss(fake, real), fake)
    assert (gradient < 0).all()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Hinge", ([0.0, 0.75, 1.0], [0.5, 0.25])),
        # the middle of the means 1 and -0.25 is 0.375
        ("Wasserstein", ([sigmoid(v - 0.375) for v in (-3, 0.5, 5.5)], [sigmoid(v - 0.375) for v in (0, -0.5)])),
        ("RelativisticAverage", ([sigmoid(v + 0.25) for v in (-3, 0.5, 5.5)], [sigmoid(v - 1) for v in (0, -0.5)])),
    ],
)
def test_probabilities(name, expected):
    real, fake = build_objective(name).probabilities(torch.tensor([-3, 0.5, 5.5]), torch.tensor([0, -0.5]))
    assert real.tolist() == pytest.approx(expected[0]) and fake.tolist() == pytest.approx(expected[1])


def test_feature_distance_is_the_mean_over_all_entries_of_all_layers():
    """A layer of 2 and one of 3 entries for each of 2 samples: 10 entries, not a mean of means."""
    objective = build_objective("MultiLayerL1")
    real = (torch.tensor([[1.0, 2], [3, 4]]), torch.zeros(2, 3))
    fake = (torch.tensor([[0.0, 4], [3, 3]]), torch.tensor([[1.0, -2, 0], [0, 0, 5]]))
    expected = (1 + 2 + 0 + 1 + 1 + 2 + 5) / 10
    assert objective.generator_loss(fake, real).item() == pytest.approx(expected)
    assert objective.discriminator_loss(real, fake).item() == pytest.approx(-expected)
    assert objective.probabilities(real, fake) is None
    assert (objective.judges, objective.pairs, objective.uses_labels) == ("features", True, False)


@pytest.mark.parametrize("name", ["MultiLayerL1", "RelativisticAverage"])
def test_a_pair_needs_both_sides(name):
    with pytest.raises(ValueError, match="real"):
        build_objective(name).generator_loss(torch.zeros(2))
