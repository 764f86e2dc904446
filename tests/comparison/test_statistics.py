"""Statistics over seeds against numbers worked by hand, printed tables, and the coverage that an interval promises."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from gan_plugin.comparison.statistics import (
    bootstrap_interval,
    difference,
    judged,
    judged_above,
    spread,
    superiority,
    t_interval,
)


def differing(*values):
    """The difference of an arm that is better by these amounts, seed by seed."""
    baseline = dict.fromkeys(range(len(values)), 20.0)
    return difference({seed: 20.0 + value for seed, value in enumerate(values)}, baseline)


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


def test_the_interval_of_five_values_by_the_printed_table():
    # Student's t for four degrees of freedom: 2.776 at 95 %, and 0.941 is exceeded in 20 % of cases
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    error = math.sqrt(2.5 / 5)
    assert t_interval(values) == pytest.approx((3 - 2.776 * error, 3 + 2.776 * error), abs=1e-3)
    found = differing(*values)
    assert found.interval == pytest.approx(t_interval(values))
    assert found.detectable == pytest.approx((2.776 + 0.941) * error, abs=1e-3)
    assert t_interval([1.0]) is None


def test_the_interval_holds_the_truth_at_its_level_where_the_bootstrap_does_not():
    """1000 comparisons of five seeds: by the binomial law 93 to 97 % of right intervals in 99.7 % of such tests."""
    draws = np.random.default_rng(0).normal(0.7, 2.0, (1000, 5))
    held = [low <= 0.7 <= high for low, high in map(t_interval, draws)]
    assert 0.93 <= np.mean(held) <= 0.97
    held = [low <= 0.7 <= high for low, high in map(bootstrap_interval, draws[:200])]
    assert np.mean(held) < 0.9


def test_p_agrees_with_the_interval():
    """The interval of 95 % ends at 0 where p is 0.05."""
    found = differing(1.0, 2.0, 3.0, 4.0, 5.0)
    shifted = differing(*(value - found.interval[0] for value in (1.0, 2.0, 3.0, 4.0, 5.0)))
    assert shifted.interval[0] == pytest.approx(0, abs=1e-9) and shifted.p == pytest.approx(0.05)
    assert differing(*[2.0] * 5).p == 0 and differing(*[0.0] * 5).p == 1


def test_differences_are_paired_by_seed():
    result = difference({0: 10.0, 2: 13.0, 5: 99.0}, {2: 11.0, 0: 9.0, 4: 0.0})
    assert result.by_seed == {0: 1.0, 2: 2.0}
    assert (result.n, result.mean) == (2, 1.5)


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([0.5, 1.0, 2.0, 1.5, 0.75], "above the baseline"),
        ([-0.5, -1.0, -2.0, -1.5, -0.75], "below the baseline"),
        ([-0.5, 1.0, 2.0, 0.0, 0.1], "no difference shown"),
        ([0.0] * 5, "no difference shown"),
        ([1.0, 1.1, 0.9, 1.0], "too few seeds"),
        ([0.5], "too few seeds"),
        ([], "too few seeds"),
    ],
)
def test_verdicts(differences, verdict):
    (found,) = judged([differing(*differences)])
    assert found.verdict == verdict
    unjudged = "exploratory" if len(differences) >= 5 else "too few seeds"
    assert differing(*differences).verdict == unjudged


def test_holm_by_hand():
    """Holm 1979: of three, the least p counts threefold, the next twice, the greatest once, none less than before."""
    raw = [replace(differing(1.0, 2.0, 3.0, 4.0, 5.0), p=p) for p in (0.03, 0.01, 0.02)]
    found = judged([*raw, differing()])
    assert [each.adjusted for each in found] == [pytest.approx(0.04), pytest.approx(0.03), pytest.approx(0.04), None]
    assert [each.verdict for each in found[:3]] == ["above the baseline"] * 3
    assert judged([replace(raw[0], p=0.026), replace(raw[1], p=0.9)])[0].verdict == "no difference shown"


def test_an_arm_is_above_its_controls_only_if_it_is_above_each():
    """By hand: mean 1 and deviation sqrt(0.025) have t = 14.14 over five seeds, p = 0.000145 two-sided."""
    sure, none = differing(0.8, 0.9, 1.0, 1.1, 1.2), differing(-0.2, -0.1, 0.0, 0.1, 0.2)
    below = differing(-1.2, -1.1, -1.0, -0.9, -0.8)
    good, bad, worse = (superiority({"baseline": sure, "frozen": other}) for other in (sure, none, below))
    assert good.p == pytest.approx(0.000145 / 2, rel=0.01)
    assert (bad.closest, bad.p) == ("frozen", pytest.approx(0.5))
    assert worse.p == pytest.approx(1 - 0.000145 / 2, rel=0.01)
    found = judged_above([bad, good, worse])
    assert [each.verdict for each in found] == [
        "not shown to be above frozen",
        "above every control",
        "not shown to be above frozen",
    ]
    assert found[1].adjusted == pytest.approx(3 * good.p)
    reaching = replace(sure, images=(-0.1, 2.1))
    assert judged_above([superiority({"baseline": reaching})])[0].verdict == "not shown to be above baseline"
    assert judged_above([superiority({"baseline": differing(1.0, 1.1, 1.2, 1.3)})])[0].verdict == "too few seeds"
    # what no seed can tell is the least sure
    lone = superiority({"baseline": sure, "rec": difference({0: 1.0}, {})})
    assert (lone.closest, lone.p) == ("rec", None)


def test_an_arm_that_equals_its_best_control_is_seldom_called_above():
    rng = np.random.default_rng(0)
    calls = 0
    for _ in range(400):
        noise = rng.normal(size=(3, 5))
        arm, frozen, baseline = noise[0], noise[1], noise[2] - 3
        values = [dict(enumerate(each)) for each in (arm, frozen, baseline)]
        to = {
            name: difference(values[0], other) for name, other in zip(("frozen", "baseline"), values[1:], strict=True)
        }
        calls += judged_above([superiority(to)])[0].verdict == "above every control"
    # 2.5 % of 400 are 10, with a deviation of 3
    assert calls <= 20
