"""The fine search (slides, section 5): Hyperband whose promoted trials train on, or Optuna's samplers and pruners.

Whichever it is, its points are drawn by a sampler of Optuna and go the way of all trials through the table. Hyperband's
table of brackets and rungs is that of Li et al. 2018 (arXiv 1603.06560, algorithm 1). Optuna's HyperbandPruner only
stops trials; here the best of a rung train on from their checkpoints, as in Keras Tuner.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from gan_plugin.errors import UserError

from .context import Context
from .phases import Choice, Plan, level_settings, settle
from .study import LR, Arm, Coarse, Fine, Settings, Study
from .table import Row, Wanted

FINE = "fine"
_BATCHES = 5
_PRUNERS: dict[str, type[BasePruner]] = {
    "median": MedianPruner,
    "hyperband": HyperbandPruner,
    "halving": SuccessiveHalvingPruner,
}
Bounds = dict[str, tuple[float, float, bool]]


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


def phase_of(arm: str) -> str:
    """The name of an arm's Optuna study."""
    return f"{FINE}-{arm}"


def fine_plan(
    context: Context, phase: Fine, arm: str, rows: Mapping[str, Row], base: Settings, space: Mapping[str, Any]
) -> Plan:
    """The next trials of one arm.

    Args:
        context: of the study.
        phase: its fine search.
        arm: a key of `phase.arms`.
        rows: of the arm's Optuna study.
        base: settings that the phases before have found.
        space: name -> (low, high).
    """
    linear = phase.arms[arm].linear
    bounds = {name: (float(low), float(high), name not in linear) for name, (low, high) in space.items()}
    # A space that has been changed since gets trials of its own; those of the one before stay, as far as they are.
    spaces = [space for row in rows.values() if (space := _bounds_of(row))]
    spaces = [space for place, space in enumerate(spaces) if space not in spaces[:place]]
    number = spaces.index(bounds) if bounds in spaces else len(spaces)
    search = _Search(context, phase, arm, rows, base, bounds, number)
    plan = search.hyperband() if phase.method == "hyperband" else search.optuna()
    for row in rows.values():
        if row.is_open and _bounds_of(row) not in ({}, bounds):
            plan.finished = False
            if row.trial.state == TrialState.WAITING:
                plan.close[row.name] = TrialState.COMPLETE if row.done >= search.most else TrialState.PRUNED
    return plan


def _bounds_of(row: Row) -> Bounds:
    return {name: (low, high, log) for name, (low, high, log) in row.attr("space", {}).items()}


def pruner_of(study: Study, phase: str) -> BasePruner | None:
    """Optuna's pruner for the trials of an Optuna study; None where none is wanted."""
    fine = study.phases.get(FINE)
    if fine is None or fine.method != "optuna" or not phase.startswith(f"{FINE}-") or not study.objective.is_loss:
        return None
    return _PRUNERS[fine.pruner]() if fine.pruner in _PRUNERS else None


class _Search:
    """The search in one space: its keys begin with "s" or "t", and from the second space on with its number."""

    def __init__(
        self,
        context: Context,
        phase: Fine,
        arm: str,
        rows: Mapping[str, Row],
        base: Settings,
        bounds: Bounds,
        number: int,
    ) -> None:
        self._context, self._phase, self._arm, self._rows = context, phase, arm, rows
        self._base, self._bounds, self._number = base, bounds, number
        self._prefix = f"w{number}-" if number else ""
        self.most = context.iterations("small_train", phase.epochs)

    def hyperband(self) -> Plan:
        """All brackets side by side, each rung once the one before it is ready; with TPE one bracket after the other,
        so that it can learn from those before."""
        plan = Plan(finished=True)
        one_by_one = self._phase.sampler == "tpe"
        first = 0
        for bracket in brackets(self._phase.epochs, self._phase.eta):
            count = bracket.rungs[0].trials
            keys = [f"{self._prefix}s{bracket.s}-{number}" for number in range(count)]
            part = self._bracket(bracket, keys, self._points(keys, first))
            first += count
            plan.wanted += part.wanted
            plan.close |= part.close
            plan.finished &= part.finished
            if one_by_one and not part.finished:
                break
        return plan

    def _bracket(self, bracket: Bracket, members: list[str], points: Mapping[str, Settings]) -> Plan:
        plan = Plan()
        for number, rung in enumerate(bracket.rungs):
            target = self._context.iterations("small_train", rung.resource)
            plan.wanted += [self._wanted(key, points[key], target) for key in members]
            here = [self._rows.get(key) for key in members]
            if any(row is None or not (row.done >= target or not row.is_open) for row in here):
                return plan
            score = self._context.study.objective.score
            scores = {row.key: math.inf if row.is_failed else score(row.value_at(target)) for row in here if row}
            last = number + 1 == len(bracket.rungs)
            members = [] if last else promoted(scores, bracket.rungs[number + 1].trials)
            for row in here:
                if row is not None and row.is_open and row.key not in members:
                    plan.close[row.name] = TrialState.COMPLETE if last else TrialState.PRUNED
        plan.finished = True
        return plan

    def optuna(self) -> Plan:
        """As many trials as asked for, in batches with a sampler that learns."""
        count = self._phase.trials
        size = max(1, math.ceil(count / _BATCHES)) if self._phase.sampler == "tpe" else count
        plan = Plan(finished=True)
        for first in range(0, count, size):
            keys = [f"{self._prefix}t{number}" for number in range(first, min(first + size, count))]
            points = self._points(keys, first)
            part = settle(self._rows, [self._wanted(key, points[key], self.most) for key in keys])
            plan.wanted += part.wanted
            plan.close |= part.close
            plan.finished &= part.finished
            if not part.finished:
                break
        return plan

    def _points(self, keys: list[str], first: int) -> dict[str, Settings]:
        """What is searched, for each trial; that of a trial which exists is what it is."""
        known = {
            key: {name: self._rows[key].params[name] for name in self._bounds} for key in keys if key in self._rows
        }
        if len(known) == len(keys):
            return known
        distributions: dict[str, BaseDistribution] = {
            name: FloatDistribution(low, high, log=log) for name, (low, high, log) in self._bounds.items()
        }
        study = optuna.create_study(sampler=self._sampler(first))
        for row in self._rows.values():
            fits = all(d._contains(row.params.get(name, math.inf)) for name, d in distributions.items())
            if row.key not in keys and row.value is not None and fits:
                score = self._context.study.objective.score(row.value)
                params = {name: row.params[name] for name in distributions}
                study.add_trial(create_trial(value=score, params=params, distributions=distributions))
        drawn = {key: dict(study.ask(distributions).params) for key in keys}
        return {**drawn, **known}

    def _sampler(self, first: int) -> BaseSampler:
        # An own stream of numbers for each arm and bracket: whoever plans, and whenever, draws the same.
        order = list(self._phase.arms).index(self._arm)
        seed = (self._context.study.seed * 1009 + order * 101 + self._number * 10007 + first) % 2**31
        kind = self._phase.sampler
        if kind == "tpe":
            return TPESampler(seed=seed, constant_liar=True, n_startup_trials=5)
        return QMCSampler(seed=seed, scramble=True) if kind == "qmc" else RandomSampler(seed=seed)

    def _wanted(self, key: str, point: Settings, target: int) -> Wanted:
        settings = self._context.settings(
            self._phase.settings,
            self._base,
            self._phase.arms[self._arm].settings,
            point,
            train="small_train",
            val="small_val",
            iterations=self.most,
        )
        return Wanted(phase_of(self._arm), key, dict(point), settings, target, self._bounds)


def base_of(coarse: Coarse | None, choice: Choice) -> Settings:
    """The settings of the levels that the coarse search has chosen."""
    return {} if coarse is None else level_settings(coarse, choice.levels) or {}


def space_of(context: Context, arm: Arm, rows: Mapping[str, Row]) -> dict[str, Any]:
    """The space of an arm, with lr "auto" replaced by an interval from the coarse search.

    The interval goes from the best learning rate of the trials with the arm's optimizer to the next higher one that
    did not diverge, which is how the slides arrive at [1e-5, 1e-4] for SGD and [1e-6, 1e-5] for Adam.
    """
    space = dict(arm.space)
    if space.get(LR) == "auto":
        space[LR] = _auto_interval(context, arm, rows)
    return space


def _auto_interval(context: Context, arm: Arm, rows: Mapping[str, Row]) -> list[float]:
    optimizer = arm.settings.get("SOLVER.OPTIMIZER", context.optimizer)
    fitting = [
        row
        for row in rows.values()
        if row.settings.get("SOLVER.OPTIMIZER", context.optimizer) == optimizer
        and row.value is not None
        and not row.is_failed
    ]
    if not fitting:
        raise UserError(
            f"phases.fine has lr: auto, but no coarse trial with the optimizer {optimizer!r} has a score; give the "
            "interval as [low, high]."
        )
    best = min(fitting, key=lambda row: context.study.objective.score(row.value)).params[LR]
    higher = sorted({row.params[LR] for row in fitting if row.params[LR] > best})
    lower = sorted({row.params[LR] for row in fitting if row.params[LR] < best})
    return [best, higher[0]] if higher else [lower[-1], best] if lower else [best / 3, best * 3]
