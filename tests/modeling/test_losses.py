"""Objectives against their formulas, written out with logarithms of probabilities."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_plugin.errors import UserError
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.stability import LabelNoise

LOGITS = st.lists(st.floats(-8, 8), min_size=1, max_size=6)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def cross_entropy(logit: float, label: float) -> float:
    p = sigmoid(logit)
    return -(label * math.log(p) + (1 - label) * math.log(1 - p))


FORMULAS = {
    "NonSaturatingBCE": (cross_entropy, lambda x: -math.log(sigmoid(x)), 1.0),
    "Minimax": (cross_entropy, lambda x: math.log(1 - sigmoid(x)), 1.0),
    "LeastSquares": (lambda x, y: (sigmoid(x) - y) ** 2, lambda x: (sigmoid(x) - 1) ** 2, 1.0),
    "LSGAN": (lambda x, y: (x - y) ** 2, lambda x: 0.5 * (x - 1) ** 2, 0.5),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(real=LOGITS, fake=LOGITS, soft=st.floats(0.7, 1.2), low=st.floats(0, 0.3))
def test_objective_is_its_formula(name, real, fake, soft, low):
    per_sample, generator, factor = FORMULAS[name]
    objective = build_objective(name)
    x, y = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    targets = torch.full_like(x, soft), torch.full_like(y, low)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    expected = factor * (mean([per_sample(v, soft) for v in real]) + mean([per_sample(v, low) for v in fake]))
    assert objective.discriminator_loss(x, y, *targets).item() == pytest.approx(expected, abs=1e-6)
    assert objective.generator_loss(y).item() == pytest.approx(mean([generator(v) for v in fake]), abs=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_generator_is_pulled_towards_real(name):
    logits = torch.zeros(3, requires_grad=True)
    build_objective(name).generator_loss(logits).backward()
    assert (logits.grad < 0).all()


def test_unknown_objective_lists_the_known():
    with pytest.raises(UserError, match="Hinch.*'Hinge', 'LSGAN', 'LeastSquares', 'Minimax', 'MultiLayerL1', 'NonSat"):
        build_objective("Hinch")


def test_label_noise_has_the_ranges_and_the_flips_of_the_thesis():
    torch.manual_seed(0)
    noise, logits = LabelNoise(), torch.zeros(200_000)
    for is_real, own, other in ((True, (0.7, 1.2), (0.0, 0.3)), (False, (0.0, 0.3), (0.7, 1.2))):
        labels = noise.draw(logits, is_real)
        inside = (labels >= own[0]) & (labels <= own[1])
        assert ((labels >= other[0]) & (labels <= other[1]))[~inside].all()
        assert (~inside).float().mean().item() == pytest.approx(0.05, abs=0.003)
        assert labels[inside].mean().item() == pytest.approx(sum(own) / 2, abs=0.003)
    hard = LabelNoise(real=(1.0, 1.0), fake=(0.0, 0.0), flip_prob=0.0)
    assert torch.equal(hard.draw(logits[:5], True), torch.ones(5))
