"""Means over seeds, and what the paired differences to the baseline allow to say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# with fewer seeds than this an interval over seeds means nothing
LEAST_SEEDS = 3
CONFIDENCE = 0.95
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
    """An arm minus the baseline of the same seeds."""

    by_seed: dict[int, float]
    n: int
    mean: float | None
    # bootstrap percentile interval of the mean over seeds; None for fewer than two seeds
    interval: tuple[float, float] | None
    verdict: str


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    n = len(values)
    return Spread(n, float(np.mean(values)) if n else None, float(np.std(values, ddof=1)) if n > 1 else None)


def difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """Compare an arm to the baseline, seed by seed.

    Both arms of a seed start from the same weights and see the same images in the same order; what they share cancels
    out of their difference.

    Args:
        arm: seed -> value.
        baseline: the same; seeds that only one of the two has are left out.
    """
    by_seed = {seed: arm[seed] - baseline[seed] for seed in sorted(arm.keys() & baseline.keys())}
    values = list(by_seed.values())
    interval = bootstrap_interval(values)
    mean = float(np.mean(values)) if values else None
    return Difference(by_seed, len(values), mean, interval, _verdict(len(values), interval))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The seeded percentile bootstrap interval of the mean (Efron 1979); None for fewer than two values."""
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


def _verdict(n: int, interval: tuple[float, float] | None) -> str:
    if n < LEAST_SEEDS or interval is None:
        return f"{n} {'seed' if n == 1 else 'seeds'}: an interval means nothing"
    low, high = interval
    if low <= 0 <= high:
        return "no difference shown"
    return "above the baseline" if low > 0 else "below the baseline"


def chance_of_one_sign(n: int) -> float:
    """How often n differences without any true effect all have the same sign: 2 ** (1 - n)."""
    return math.ldexp(1.0, 1 - n)
