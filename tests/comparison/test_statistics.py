"""Statistics over seeds against numbers worked by hand and against all resamples there are."""

import math
from itertools import product

import numpy as np
import pytest

from gan_plugin.comparison.statistics import bootstrap_interval, chance_of_one_sign, difference, spread


def test_spread_by_hand():
    result = spread([2.0, 4.0, 9.0])
    assert (result.n, result.mean) == (3, 5.0)
    # squares of the deviations: 9, 1, 16; divided by n - 1
    assert result.std == pytest.approx(math.sqrt(26 / 2))


def test_one_value_has_no_deviation_and_none_has_no_mean():
    assert (spread([3.0]).mean, spread([3.0]).std) == (3.0, None)
    assert (spread([]).n, spread([]).mean, spread([]).std) == (0, None, None)


def test_the_bootstrap_agrees_with_every_resample_there_is():
    values = [1.0, 2.0, 4.0, 8.0]
    means = np.sort([np.mean(resample) for resample in product(values, repeat=4)])
    assert len(means) == 256
    # 2.5 % of 256 are 6.4 resamples: 1 has the mean 1, 4 have 1.25, so the seventh has 1.5; from above 8, 7 and 6.5
    assert (means[6], means[-7]) == (1.5, 6.5)
    assert bootstrap_interval(values) == (1.5, 6.5)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_the_interval_of_three_differences_reaches_from_the_least_to_the_greatest():
    # each is the mean of one resample in 27, which is more than 2.5 %
    assert bootstrap_interval([-1.0, 0.5, 3.0]) == (-1.0, 3.0)


def test_differences_are_paired_by_seed():
    result = difference({0: 10.0, 2: 13.0, 5: 99.0}, {2: 11.0, 0: 9.0, 4: 0.0})
    assert result.by_seed == {0: 1.0, 2: 2.0}
    assert (result.n, result.mean) == (2, 1.5)


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([0.5, 1.0, 2.0], "above the baseline"),
        ([-0.5, -1.0, -2.0], "below the baseline"),
        ([-0.5, 1.0, 2.0], "no difference shown"),
        ([0.0, 0.0, 0.0], "no difference shown"),
        ([0.0, 1.0, 2.0], "no difference shown"),
        ([0.5, 1.0], "2 seeds: an interval means nothing"),
        ([0.5], "1 seed: an interval means nothing"),
        ([], "0 seeds: an interval means nothing"),
    ],
)
def test_verdicts(differences, verdict):
    baseline = dict.fromkeys(range(len(differences)), 20.0)
    arm = {seed: 20.0 + value for seed, value in enumerate(differences)}
    assert difference(arm, baseline).verdict == verdict


def test_chance_of_one_sign():
    # of the 8 patterns of three signs two are uniform
    assert chance_of_one_sign(3) == 2 / 8
