"""The noise in masks by hand."""

import pytest
import torch
from coigan.data.samples import MaskNoise, soften
from torchvision.transforms.functional import gaussian_blur

from gan_plugin.errors import UserError


def square(side=40):
    masks = torch.zeros(2, side, side)
    masks[0, 15:25, 12:30] = 1
    return masks


@pytest.mark.parametrize("strategy, value", [("additive", 1.5), ("multiplicative", 0.5), ("replace", 0.5)])
def test_strategies_without_deviation(strategy, value):
    noisy = MaskNoise(0.5, 0.0, strategy, smooth=0)(square())
    assert noisy.max() == value and (noisy > 0).equal(square() > 0) and noisy[1].abs().max() == 0


def test_softening_is_a_gaussian_blur():
    for kernel in (5, 11, 41):
        sigma = 0.15 * kernel + 0.35
        expected = gaussian_blur(square(64), [kernel, kernel], [sigma, sigma])
        torch.testing.assert_close(soften(square(64), kernel), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(soften(square(), 4), soften(square(), 5))
    assert soften(square(), 0) is soften(square(), 1) or soften(square(), 0).equal(square())


def test_smooth_noise_is_normalised_and_masked_twice():
    torch.manual_seed(3)
    noise = MaskNoise(0.5, 0.4, "replace", smooth=5)
    noisy = noise(square())
    torch.manual_seed(3)
    z = 0.5 + 0.4 * torch.randn(2, 40, 40)
    soft = soften(square(), 5)
    v = (z * soft)[0]
    low, high = min(0.0, v.min().item()), max(1.0, v.max().item())
    torch.testing.assert_close(noisy[0], (v - low) / (high - low) * soft[0])
    assert noisy[1].abs().max() == 0


def test_scales_add_up_and_seeds_repeat():
    noise = MaskNoise(0.2, 0.0, "replace", scales=(1, 2, 4), smooth=0)
    assert noise(square()).max().item() == pytest.approx(0.6)
    noise = MaskNoise(scales=(1, 8), smooth=0)
    draws = [noise(square(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert draws[0].equal(draws[1]) and not draws[0].equal(draws[2])
    with pytest.raises(UserError, match="STRATEGY"):
        MaskNoise(strategy="salt")
