"""What a phase decides from the table: which trials it wants, which are closed, and whether it is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import TrialState

from .context import Context
from .study import LR, Babysit, Settings
from .table import Row, Wanted


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


BABYSIT = "babysit"
OVERFIT, LR_CHECK = "overfit", "lr-range"


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
        return False, f"It cannot be trained: {row.attr('reason', 'the trial failed')}"
    losses = [entry["total"] for entry in row.attr("history", [])]
    if len(losses) < 2:
        return False, "There are fewer than two measurements of the loss; train for more epochs."
    fall = 1 - min(losses) / losses[0]
    said = f"the loss on the training images fell by {fall:.0%}, from {losses[0]:.3f} to {min(losses):.3f}"
    wanted = f"{phase.fall:.0%} are asked for"
    return (
        (True, f"It can be trained: {said} ({wanted}).")
        if fall >= phase.fall
        else (
            False,
            f"It cannot be trained well enough: {said}, but {wanted}.",
        )
    )
