"""The coarse search (slides, section 4): a few learning rates for each level of some factors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from .context import Context
from .plans import Plan, settle
from .study import LR, Coarse, Settings
from .table import Row, Wanted

COARSE = "coarse"
Levels = dict[str, str]


@dataclass
class Choice:
    """What the coarse search has found so far.

    Attributes:
        levels: factor -> the level that wins, the first one as long as nothing is known.
        lr: the best learning rate at those levels; None as long as nothing is known.
        steps: for each factor that has been decided: level -> (best score, its learning rate).
    """

    levels: Levels = field(default_factory=dict)
    lr: float | None = None
    steps: dict[str, dict[str, tuple[float, float | None]]] = field(default_factory=dict)


def coarse_plan(context: Context, phase: Coarse, rows: Mapping[str, Row]) -> tuple[Plan, Choice]:
    """The next trials of the coarse search, and what it has found.

    "coordinate" decides one factor after the other with the others held at the best level so far, as the slides do:
    cheap, but an interaction of two factors stays unseen. "factorial" trains every combination. Combinations that a
    factor has no settings for, such as ImageNet weights of a backbone that has none, are left out.
    """
    choice = Choice({factor: next(iter(levels)) for factor, levels in phase.factors.items()})
    if phase.procedure == "factorial" or not phase.factors:
        plan = settle(rows, _trials(context, phase, _combinations(phase)))
        if plan.finished:
            _choose_among_all(context, phase, rows, choice)
        return plan, choice
    wanted: list[Wanted] = []
    plan = Plan()
    for factor, levels in phase.factors.items():
        wanted += _trials(context, phase, [{**choice.levels, factor: level} for level in levels])
        wanted = list({entry.key: entry for entry in wanted}.values())
        plan = settle(rows, wanted)
        if not plan.finished:
            return plan, choice
        outcome = {level: _best(context, phase, rows, {**choice.levels, factor: level}) for level in levels}
        choice.steps[factor] = outcome
        choice.levels[factor] = min(outcome, key=lambda level: outcome[level][0])
        choice.lr = outcome[choice.levels[factor]][1]
    return plan, choice


def _combinations(phase: Coarse) -> list[Levels]:
    return [dict(zip(phase.factors, levels, strict=True)) for levels in product(*phase.factors.values())]


def _choose_among_all(context: Context, phase: Coarse, rows: Mapping[str, Row], choice: Choice) -> None:
    scores = [(levels, *_best(context, phase, rows, levels)) for levels in _combinations(phase)]
    choice.levels, _, choice.lr = min(scores, key=lambda entry: entry[1])
    for factor, levels in phase.factors.items():
        of_level = {level: [entry for entry in scores if entry[0][factor] == level] for level in levels}
        best = {level: min(entries, key=lambda entry: entry[1]) for level, entries in of_level.items()}
        choice.steps[factor] = {level: (entry[1], entry[2]) for level, entry in best.items()}


def _best(context: Context, phase: Coarse, rows: Mapping[str, Row], levels: Levels) -> tuple[float, float | None]:
    scores = {
        lr: context.study.objective.score(row.value)
        for lr in phase.lr
        if (row := rows.get(key_of(levels, lr))) is not None and not row.is_failed
    }
    if not scores:
        return math.inf, None
    lr = min(scores, key=lambda rate: scores[rate])
    return scores[lr], lr


def key_of(levels: Levels, lr: float) -> str:
    """The name of a trial."""
    return ",".join([*(f"{factor}={level}" for factor, level in levels.items()), f"lr={lr:g}"])


def level_settings(phase: Coarse, levels: Levels) -> Settings | None:
    """The settings of a combination; None if a factor has none for the others' levels."""
    merged: Settings = {}
    for factor, level in levels.items():
        for key, value in (phase.factors[factor][level] or {}).items():
            if isinstance(value, dict):
                fitting = [value[other] for other in levels.values() if other in value]
                if not fitting:
                    return None
                value = fitting[0]
            merged[key] = value
    return merged


def _trials(context: Context, phase: Coarse, combinations: list[Levels]) -> list[Wanted]:
    part = "small_train"
    iterations = context.iterations(part, phase.epochs)
    wanted = []
    for levels in combinations:
        chosen = level_settings(phase, levels)
        if chosen is None:
            continue
        for lr in phase.lr:
            settings = context.settings(
                phase.settings, chosen, {LR: lr}, train=part, val="small_val", iterations=iterations
            )
            params: dict[str, Any] = {**levels, LR: lr}
            wanted.append(Wanted(COARSE, key_of(levels, lr), params, settings, iterations))
    return wanted
