"""What a discriminator can tell, where that is known beforehand."""

import pytest
import torch
from torch import nn

from gan_plugin.comparison.probe import Shown, probe
from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.objectives import LeastSquares, MultiLayerL1
from gan_plugin.modeling.samples import RealFakePair

IMAGES, EACH = 24, 4


class OfClasses:
    def __init__(self, count):
        self.classes = torch.zeros(count, dtype=torch.long)

    def __len__(self):
        return len(self.classes)


def shown(real, fake):
    image = torch.arange(IMAGES).repeat_interleave(EACH)
    return Shown(RealFakePair(real, fake, OfClasses(len(real))), image, batch=8)


def probed(real, fake, steps=200, objective=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1), nn.Flatten(0))
    adversary = Adversary(name="mask", discriminator=network, objective=objective or LeastSquares(), presenter=None)
    return probe(adversary, torch.optim.Adam(network.parameters(), 0.003), shown(real, fake), steps)


def noise(seed):
    return torch.randn(IMAGES * EACH, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_difference_that_all_images_have_is_told_on_unseen_ones_too():
    found = probed(noise(1) + 1, noise(2) - 1)
    assert [each.steps for each in found] == [10, 20, 50, 100, 200]
    assert found[-1].unseen > 0.95


def test_what_differs_by_chance_alone_is_known_by_heart():
    """Both sides from one distribution: the network learns its 72 samples, and knows nothing of the others."""
    last = probed(noise(1), noise(2))[-1]
    # 48 verdicts by chance: 0.5 with a deviation of 0.07
    assert last.seen > 0.95 and 0.29 < last.unseen < 0.71


def test_the_unseen_images_take_no_part():
    """What marks the last quarter of the images alone is not learnt, though every other sample is told apart."""
    real, fake = noise(1), noise(2)
    real[: 18 * EACH] += 1
    fake[: 18 * EACH] -= 1
    real[18 * EACH :] -= 1
    fake[18 * EACH :] += 1
    last = probed(real, fake)[-1]
    assert last.seen > 0.95 and last.unseen < 0.05


def test_an_objective_without_verdicts_and_too_few_images_are_refused():
    with pytest.raises(UserError, match="MultiLayerL1 says of no sample whether it is real"):
        torch.manual_seed(0)
        network = nn.ModuleList([nn.Conv2d(1, 1, 1)])
        network.forward = lambda x: (x.flatten(1), network[0](x).flatten(1))
        adversary = Adversary(name="mask", discriminator=network, objective=MultiLayerL1(), presenter=None)
        probe(adversary, torch.optim.SGD(network.parameters(), 0.1), shown(noise(1), noise(2)), 1)
    one = Shown(RealFakePair(noise(1)[:4], noise(2)[:4], OfClasses(4)), torch.zeros(4, dtype=torch.long), 4)
    adversary = Adversary(name="mask", discriminator=nn.Flatten(), objective=LeastSquares(), presenter=None)
    with pytest.raises(UserError, match="1 images with objects are too few"):
        probe(adversary, None, one, 1)
