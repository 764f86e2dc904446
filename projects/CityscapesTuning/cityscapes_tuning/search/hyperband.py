"""Hyperband's table of brackets and rungs (Li et al. 2018, arXiv 1603.06560, algorithm 1), and who is promoted.

Optuna's HyperbandPruner only stops trials; here the best of a rung train on from their checkpoints, as in Keras Tuner.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gan_plugin.errors import UserError


@dataclass(frozen=True)
class Rung:
    """How many trials reach how much of the resource (epochs)."""

    trials: int
    resource: float


@dataclass(frozen=True)
class Bracket:
    """A run of successive halving; `s` is how many times it halves."""

    s: int
    rungs: tuple[Rung, ...]


def brackets(most: float, eta: float = 3) -> list[Bracket]:
    """The brackets s_max, ..., 0 with their rungs.

    With R = `most`: s_max = floor(log_eta R); bracket s starts n = ceil((s_max + 1) eta^s / (s + 1)) trials at
    R eta^-s; its rung i has floor(n eta^-i) of them at R eta^(i - s).

    Args:
        most: R, the resource of the best trials, at least 1.
        eta: of `eta` trials one is promoted; above 1.

    Raises:
        UserError: a number is out of range.
    """
    if most < 1 or eta <= 1:
        raise UserError(f"Hyperband needs epochs >= 1 and eta > 1, but they are {most} and {eta}.")
    s_max = 0
    # no logarithm, which is wrong by a rounding where R is a power of eta
    while eta ** (s_max + 1) <= most:
        s_max += 1
    table = []
    for s in range(s_max, -1, -1):
        n = math.ceil((s_max + 1) * eta**s / (s + 1))
        rungs = tuple(Rung(math.floor(n * eta**-i + 1e-9), most * eta ** (i - s)) for i in range(s + 1))
        table.append(Bracket(s, rungs))
    return table


def promoted(scores: Mapping[str, float], keep: int) -> list[str]:
    """The `keep` trials with the lowest scores, best first; equal ones in the order of their names.

    Args:
        scores: trial -> score, lower is better; infinite for a trial that failed, which is never promoted.
        keep: at most so many.
    """
    able = [key for key, score in scores.items() if math.isfinite(score)]
    return sorted(able, key=lambda key: (scores[key], key))[:keep]


def cost(table: Sequence[Bracket]) -> float:
    """Epochs that all trials of `table` take together; promoted ones only take what is left."""
    total = 0.0
    for bracket in table:
        before = 0.0
        for rung in bracket.rungs:
            total += rung.trials * (rung.resource - before)
            before = rung.resource
    return total
