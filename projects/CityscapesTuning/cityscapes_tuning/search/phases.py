"""All phases but the fine search: what each wants from the table, what it closes, and what it finds."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from optuna.trial import TrialState

from ..data.register import dataset_name
from .context import Context
from .study import LR, Babysit, Coarse, Confirm, Fine, Full, Settings
from .table import Row, Wanted

BABYSIT, COARSE, CONFIRM, FULL = "babysit", "coarse", "confirm", "full"
OVERFIT, LR_CHECK = "overfit", "lr-range"
Levels = dict[str, str]
# what a trial owes to its phase, and the next phase sets anew
_OF_PHASE = (
    "DATASETS.TRAIN", "TUNING.VAL.DATASETS", "TUNING.SCHEDULE_ITERS", "TUNING.VAL.PERIOD", "SOLVER.CHECKPOINT_PERIOD",
)  # fmt: skip


@dataclass
class Plan:
    """The decisions of one phase at one time; a function of the table alone, so that any worker may make them."""

    wanted: list[Wanted] = field(default_factory=list)
    # trials to close, by phase/key
    close: dict[str, TrialState] = field(default_factory=dict)
    finished: bool = False


def settle(rows: Mapping[str, Row], wanted: list[Wanted]) -> Plan:
    """The plan of a phase, or a part of one, whose trials all train to their end: each is complete once it is ready."""
    plan = Plan(wanted)
    entries = [rows.get(entry.key) for entry in wanted]
    for row in entries:
        if row is not None and row.is_open and row.is_ready:
            plan.close[row.name] = TrialState.COMPLETE
    plan.finished = all(row is not None and row.is_ready for row in entries)
    return plan


def babysit_plan(context: Context, phase: Babysit, rows: Mapping[str, Row]) -> Plan:
    """Overfit the small training set (slides, section 3), and ramp the learning rate up until the loss explodes."""
    part = "small_train"
    iterations = context.iterations(part, phase.epochs)
    settings = context.settings(phase.settings, train=part, val=part, iterations=iterations)
    wanted = [Wanted(BABYSIT, OVERFIT, _rates(settings), settings, iterations)]
    if phase.lr_range_iterations:
        low, high = phase.lr_range
        ramp: Settings = {
            **settings,
            "SOLVER.BASE_LR": low,
            "TUNING.LR_RANGE.LOW": low,
            "TUNING.LR_RANGE.HIGH": high,
            "TUNING.VAL.PERIOD": 0,
            "TUNING.SCHEDULE_ITERS": 0,
        }
        # its own validation would say nothing: the weights at the end are ruined on purpose
        ramp["TUNING.VAL.DATASETS"] = []
        wanted.append(Wanted(BABYSIT, LR_CHECK, {LR: low}, ramp, phase.lr_range_iterations))
    return settle(rows, wanted)


def _rates(settings: Settings) -> dict[str, Any]:
    return {LR: settings["SOLVER.BASE_LR"]} if "SOLVER.BASE_LR" in settings else {}


def verdict(phase: Babysit, row: Row | None) -> tuple[bool, str]:
    """Whether the model can be trained, and the sentence that says why.

    Args:
        phase: with the share by which the loss has to fall.
        row: the overfitting trial.
    """
    if row is None or not row.is_ready:
        return False, "The sanity check has not ended yet."
    if row.is_failed:
        return False, f"The sanity check has failed: {row.attr('reason', 'the trial failed')}"
    losses = [entry["total"] for entry in row.attr("history", [])]
    if len(losses) < 2:
        return False, "There are fewer than two measurements of the loss; train for more epochs."
    fall = 1 - min(losses) / losses[0]
    said = f"the loss on the training images fell by {fall:.0%}, from {losses[0]:.4g} to {min(losses):.4g}"
    wanted = f"{phase.fall:.0%} are asked for"
    return (
        (True, f"It can be trained: {said} ({wanted}).")
        if fall >= phase.fall
        else (
            False,
            f"It cannot be trained well enough: {said}, but {wanted}.",
        )
    )


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
            space = {LR: (min(phase.lr), max(phase.lr), True)}
            wanted.append(Wanted(COARSE, key_of(levels, lr), params, settings, iterations, space))
    return wanted


def ranking(context: Context, rows: Mapping[str, Row]) -> list[Row]:
    """Complete trials, the best first."""
    score = context.study.objective.score
    done = [row for row in rows.values() if row.trial.state == TrialState.COMPLETE and row.value is not None]
    return sorted(done, key=lambda row: (score(row.value), row.name))


def confirm_plan(
    context: Context, phase: Confirm, fine: Fine, found: Mapping[str, Row], rows: Mapping[str, Row]
) -> Plan:
    """Train the best of the fine search again with other seeds.

    Args:
        context: of the study.
        phase: how many, and which seeds.
        fine: whose epochs they get.
        found: "phase/key" -> trial of all arms.
        rows: of this phase.
    """
    iterations = context.iterations("small_train", fine.epochs)
    wanted = []
    for row in ranking(context, found)[: phase.top]:
        for seed in phase.seeds:
            settings = {**row.trial.user_attrs["settings"], "SEED": seed}
            params: dict[str, Any] = {"setting": row.name, "seed": seed}
            key = f"{row.name.replace('/', '-')}-seed{seed}"
            wanted.append(Wanted(CONFIRM, key, params, settings, iterations))
    return settle(rows, wanted)


def seed_scores(rows: Mapping[str, Row]) -> dict[str, dict[int, float]]:
    """ "phase/key" of the searched trial -> seed -> objective of the trials that confirm it."""
    scores: dict[str, dict[int, float]] = {}
    for row in rows.values():
        params = row.params
        of_setting = scores.setdefault(params["setting"], {})
        if row.value is not None and not row.is_failed:
            of_setting[params["seed"]] = row.value
    return scores


def winner(context: Context, found: Mapping[str, Row], confirmed: Mapping[str, Row]) -> Row | None:
    """The searched trial with the best mean over seeds, or the best score where none was confirmed."""
    ranked = ranking(context, found)
    means = {name: statistics.fmean(values.values()) for name, values in seed_scores(confirmed).items() if values}
    if means:
        score = context.study.objective.score
        return found[min(means, key=lambda name: (score(means[name]), name))]
    return ranked[0] if ranked else None


def full_plan(context: Context, phase: Full, best: Row | None, rows: Mapping[str, Row]) -> Plan:
    """Every variant on the whole training set with early stopping, judged on the test part with its best weights.

    A variant continues from the kept weights of the one that its `from` names, else it starts as the best setting
    does: `V5: {from: V1, ...}` trains on from V1's kept epoch, as the slides do.

    Args:
        context: of the study.
        phase: the variants.
        best: the trial whose settings they share; None for those of the phase alone.
        rows: of this phase.
    """
    iterations = context.iterations("train", phase.epochs)
    base: Settings = {}
    if best is not None:
        base = {key: value for key, value in best.trial.user_attrs["settings"].items() if key not in _OF_PHASE}
    wanted = []
    for name, variant in phase.variants.items():
        own = {key: value for key, value in (variant or {}).items() if key != "from"}
        if parent := (variant or {}).get("from"):
            own["MODEL.WEIGHTS"] = f"@{FULL}/{parent}"
        settings = context.settings(base, phase.settings, own, train="train", val="val", iterations=iterations)
        settings |= {
            "TUNING.TEST": [dataset_name("test")],
            "TUNING.VAL.PATIENCE": phase.patience,
            "TUNING.VAL.IMAGES": (variant or {}).get("TUNING.VAL.IMAGES", phase.settings.get("TUNING.VAL.IMAGES", 0)),
            "TEST.BEST_METRIC": f"-val_loss/{context.study.objective.loss}",
            "TEST.PER_IMAGE_AP": True,
        }
        wanted.append(Wanted(FULL, name, {"variant": name}, settings, iterations))
    return settle(rows, wanted)


def best_loss(row: Row) -> float:
    """The lowest validation loss of a trial."""
    return min((entry["total"] for entry in row.attr("history", [])), default=math.inf)
