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
ABOVE_ALL = "above every control"
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
    result = list(differences)
    for i, adjusted in holm([each.p for each in differences]).items():
        each = differences[i]
        unsure = adjusted > 1 - CONFIDENCE or each.images is not None and each.images[0] <= 0 <= each.images[1]
        shown = NOTHING if unsure else f"{'above' if (each.mean or 0) > 0 else 'below'} the baseline"
        result[i] = replace(each, adjusted=adjusted, verdict=shown if each.n >= LEAST_SEEDS else TOO_FEW)
    return result


@dataclass(frozen=True)
class Superiority:
    """Whether an arm is above all of its controls in one main metric.

    Attributes:
        closest: the control of which that is least sure.
        difference: the arm minus that control.
        p: one-sided, the largest of the controls (intersection-union test, Berger 1982): the arm has to be above each
            of them, so none needs a correction for the others. None if there is none.
        adjusted: p after Holm's correction over arms and main metrics.
        verdict: what is shown at 97.5 % after that correction, one-sided as either end of an interval of 95 % is.
    """

    closest: str
    difference: Difference
    p: float | None
    adjusted: float | None = None
    verdict: str = TOO_FEW


def superiority(to_controls: Mapping[str, Difference]) -> Superiority:
    """How an arm stands to its controls, one or more; `judged_above` gives the verdict."""
    sided = {name: _one_sided(each) for name, each in to_controls.items()}
    closest = max(sided, key=lambda name: sided[name])
    p = sided[closest]
    return Superiority(closest, to_controls[closest], p if math.isfinite(p) else None)


def _one_sided(found: Difference) -> float:
    if found.p is None or found.mean is None:
        # nothing is less sure than what cannot be compared
        return math.inf
    return found.p / 2 if found.mean > 0 else 1 - found.p / 2


def judged_above(found: Sequence[Superiority]) -> list[Superiority]:
    """All arms of one comparison in all main metrics, with their verdicts; one whose interval over seeds and images
    reaches 0 is not called above."""
    result = list(found)
    for i, adjusted in holm([each.p for each in found]).items():
        each = found[i]
        images = each.difference.images
        above = adjusted <= (1 - CONFIDENCE) / 2 and (images is None or images[0] > 0)
        shown = ABOVE_ALL if above else f"not shown to be above {each.closest}"
        result[i] = replace(each, adjusted=adjusted, verdict=shown if each.difference.n >= LEAST_SEEDS else TOO_FEW)
    return result


def holm(ps: Sequence[float | None]) -> dict[int, float]:
    """The place of each p that there is -> p after Holm's correction (1979)."""
    adjusted, largest = {}, 0.0
    ranked = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    for rank, (p, i) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        adjusted[i] = largest
    return adjusted


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
