"""Means over seeds, and what the paired differences to the baseline allow to say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

# with fewer seeds than this no verdict is given: an interval over them says next to nothing
LEAST_SEEDS = 5
CONFIDENCE = 0.95
# how often a comparison is to find the difference that is called detectable
POWER = 0.8
TOO_FEW, EXPLORATORY, NOTHING = "too few seeds", "exploratory", "no difference shown"
_RESAMPLES = 9999
_SEED = 0


@dataclass(frozen=True)
class Spread:
    """Values of one metric over the seeds that have it."""

    n: int
    mean: float | None
    # sample standard deviation (n - 1); None for fewer than two values
    std: float | None


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline of the same seeds.

    Attributes:
        by_seed: seed -> difference.
        n: their number.
        mean: of them; None if there is none.
        interval: of `mean` over seeds, see `t_interval`; None for fewer than two seeds.
        images: of `mean` over seeds and test images, see `hierarchical_interval`; None where it was not taken.
        p: two-sided, of the paired t test; None for fewer than two seeds.
        detectable: the least true difference that n seeds which vary as these do would find in 80 % of comparisons.
        adjusted: p after Holm's correction over arms and main metrics; None for another metric.
        verdict: what they show of a main metric at 95 % after that correction; `TOO_FEW`; `EXPLORATORY` for another
            metric.
    """

    by_seed: dict[int, float]
    n: int
    mean: float | None
    interval: tuple[float, float] | None
    p: float | None
    detectable: float | None
    images: tuple[float, float] | None = None
    adjusted: float | None = None
    verdict: str = EXPLORATORY


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    n = len(values)
    return Spread(n, float(np.mean(values)) if n else None, float(np.std(values, ddof=1)) if n > 1 else None)


def difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Compare an arm to the baseline, seed by seed; `judged` gives the verdict.

    Both arms of a seed start from the same weights and see the same images in the same order; what they share cancels
    out of their difference.

    Args:
        arm: seed -> value.
        baseline: the same; seeds that only one of the two has are left out.
    """
    by_seed = {seed: arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())}
    values = list(by_seed.values())
    n, mean, std = spread(values).n, spread(values).mean, spread(values).std
    found = Difference(by_seed, n, mean, t_interval(values), None, None)
    if mean is None or std is None:
        return found if n >= LEAST_SEEDS else replace(found, verdict=TOO_FEW)
    error = std / math.sqrt(n)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)
    # Cohen 1988: the quantiles of the test's level and of its power, in standard errors
    needed = t_quantile(n) + stats.t.ppf(POWER, n - 1)
    found = replace(found, p=p, detectable=float(needed * error))
    return found if n >= LEAST_SEEDS else replace(found, verdict=TOO_FEW)


def judged(differences: Sequence[Difference]) -> list[Difference]:
    """The differences of all arms in all main metrics of one comparison, with their verdicts (Holm 1979).

    The chance that any of them is called a difference without being one is at most 5 %. One whose interval over seeds
    and images holds 0 is not called so either.
    """
    family = sorted((each.p, i) for i, each in enumerate(differences) if each.p is not None)
    result, adjusted = list(differences), 0.0
    for rank, (p, i) in enumerate(family):
        each = differences[i]
        adjusted = max(adjusted, min(1.0, (len(family) - rank) * p))
        unsure = adjusted > 1 - CONFIDENCE or each.images is not None and each.images[0] <= 0 <= each.images[1]
        shown = NOTHING if unsure else f"{'above' if (each.mean or 0) > 0 else 'below'} the baseline"
        result[i] = replace(each, adjusted=adjusted, verdict=shown if each.n >= LEAST_SEEDS else TOO_FEW)
    return result


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the mean by Student's t; None for fewer than two values.

    A percentile bootstrap of so few values is too narrow: over three it holds the true mean in three cases out of four.
    """
    if len(values) < 2:
        return None
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean - t_quantile(len(values)) * error, mean + t_quantile(len(values)) * error


def t_quantile(n: int) -> float:
    """How many standard errors an interval of 95 % of the mean of n values reaches to each side."""
    return t_reach(n - 1)


def t_reach(freedom: float) -> float:
    """As `t_quantile`, for an error with so many degrees of freedom, which may be a fraction."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The seeded percentile bootstrap interval of the mean of many values (Efron 1979); None for fewer than two."""
    if len(values) < 2:
        return None
    result = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
