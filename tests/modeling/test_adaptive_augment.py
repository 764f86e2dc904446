"""ADA's controller, by hand."""

import pytest
import torch

from gan_plugin.errors import UserError
from gan_plugin.modeling.stability import AdaptiveAugment


def test_the_probability_follows_the_sign_of_real_verdicts():
    augment = AdaptiveAugment("flip", target=0.6, images=100)
    sure = torch.tensor([0.1, 9.0, 0.3, 2.0])  # r = 1
    wavering = torch.tensor([0.1, 9.0, 0.3, -2.0])  # r = 0.5, below the target
    history = []
    for verdicts in (wavering, sure, sure, sure, wavering):
        augment.observe(verdicts)
        history.append(augment.probability.item())
    assert history == pytest.approx([0, 0.04, 0.08, 0.12, 0.08])
    for _ in range(40):
        augment.observe(torch.ones(4, 3, 3))  # a map of verdicts an image counts as one image
    assert augment.probability.item() == 1


def test_that_share_of_samples_is_augmented():
    samples = torch.rand(4000, 1, 2, 2)
    augment = AdaptiveAugment("flip")
    assert (augment(samples) == samples).all()
    augment.probability.fill_(0.6)
    torch.manual_seed(0)
    changed = (augment(samples) != samples).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.6 / 2, abs=0.03)  # a flip mirrors half of those it gets
    other = AdaptiveAugment("flip")
    other.load_state_dict(augment.state_dict())
    assert other.probability == augment.probability


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"policy": ""}, "needs augmentations"),
        ({"policy": "blur"}, "'blur' is unknown"),
        ({"policy": "flip", "target": 1.5}, "TARGET is 1.5"),
    ],
)
def test_mistakes_get_a_sentence(arguments, said):
    with pytest.raises(UserError, match=said):
        AdaptiveAugment(**arguments)
