"""The fine search (slides, section 5): Hyperband whose promoted trials train on, or Optuna's samplers and pruners."""

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from gan_plugin.errors import UserError

from .coarse import Choice, level_settings
from .context import Context
from .hyperband import Bracket, brackets, promoted
from .plans import Plan, settle
from .study import LR, Arm, Coarse, Fine, Settings
from .table import Row, Wanted

FINE = "fine"
_BATCHES = 5


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
    distributions: dict[str, BaseDistribution] = {
        name: FloatDistribution(float(low), float(high), log=name not in linear) for name, (low, high) in space.items()
    }
    search = _Search(context, phase, arm, rows, base, distributions)
    return search.hyperband() if phase.method == "hyperband" else search.optuna()


class _Search:
    def __init__(
        self,
        context: Context,
        phase: Fine,
        arm: str,
        rows: Mapping[str, Row],
        base: Settings,
        distributions: dict[str, BaseDistribution],
    ) -> None:
        self._context, self._phase, self._arm, self._rows = context, phase, arm, rows
        self._base, self._distributions = base, distributions
        self._most = context.iterations("small_train", phase.epochs)

    def hyperband(self) -> Plan:
        """All brackets side by side, each rung once the one before it is ready; with TPE one bracket after the other,
        so that it can learn from those before."""
        plan = Plan(finished=True)
        table = brackets(self._phase.epochs, self._phase.eta)
        one_by_one = self._phase.sampler == "tpe"
        first = 0
        for bracket in table:
            count = bracket.rungs[0].trials
            keys = [f"s{bracket.s}-{number}" for number in range(count)]
            points = self._points(keys, first)
            first += count
            part = self._bracket(bracket, keys, points)
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
            keys = [f"t{number}" for number in range(first, min(first + size, count))]
            points = self._points(keys, first)
            part = settle(self._rows, [self._wanted(key, points[key], self._most) for key in keys])
            plan.wanted += part.wanted
            plan.close |= part.close
            plan.finished &= part.finished
            if not part.finished:
                break
        return plan

    def _points(self, keys: list[str], first: int) -> dict[str, Settings]:
        """What is searched, for each trial; that of a trial which exists is what it is."""
        if all(key in self._rows for key in keys):
            return {key: dict(self._rows[key].trial.params) for key in keys}
        study = optuna.create_study(sampler=self._sampler(first))
        for row in self._rows.values():
            if row.key not in keys and row.value is not None:
                score = self._context.study.objective.score(row.value)
                study.add_trial(
                    create_trial(value=score, params=row.trial.params, distributions=row.trial.distributions)
                )
        return {key: dict(study.ask(self._distributions).params) for key in keys}

    def _sampler(self, first: int) -> BaseSampler:
        # An own stream of numbers for each arm and bracket: whoever plans, and whenever, draws the same.
        order = list(self._phase.arms).index(self._arm)
        seed = (self._context.study.seed * 1009 + order * 101 + first) % 2**31
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
            iterations=self._most,
        )
        return Wanted(phase_of(self._arm), key, dict(point), settings, target, self._distributions)


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
        if row.settings.get("SOLVER.OPTIMIZER", context.optimizer) == optimizer and row.value is not None
    ]
    if not fitting:
        raise UserError(
            f"phases.fine has lr: auto, but no coarse trial with the optimizer {optimizer!r} has a score; give the "
            "interval as [low, high]."
        )
    best = min(fitting, key=lambda row: context.study.objective.score(row.value)).trial.params[LR]
    higher = sorted({row.trial.params[LR] for row in fitting if row.trial.params[LR] > best})
    lower = sorted({row.trial.params[LR] for row in fitting if row.trial.params[LR] < best})
    return [best, higher[0]] if higher else [lower[-1], best] if lower else [best / 3, best * 3]
