"""The best of the search with other seeds, and full training with its variants (slides, section 6)."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

from ..data.register import dataset_name
from .context import Context
from .plans import Plan, settle
from .study import Confirm, Fine, Full, Settings
from .table import Row, Wanted

CONFIRM, FULL = "confirm", "full"
# what a trial owes to its phase, and the next phase sets anew
_OF_PHASE = (
    "DATASETS.TRAIN", "TUNING.VAL.DATASETS", "TUNING.SCHEDULE_ITERS", "TUNING.VAL.PERIOD", "SOLVER.CHECKPOINT_PERIOD",
)  # fmt: skip


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
        params = row.trial.params
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
            "TEST.BEST_METRIC": "-val_loss/total",
            "TEST.PER_IMAGE_AP": True,
        }
        wanted.append(Wanted(FULL, name, {"variant": name}, settings, iterations))
    return settle(rows, wanted)


def best_loss(row: Row) -> float:
    """The lowest validation loss of a trial."""
    return min((entry["total"] for entry in row.attr("history", [])), default=math.inf)
