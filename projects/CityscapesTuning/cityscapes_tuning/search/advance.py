"""From the table of trials to the next trials: all phases in their order."""

from dataclasses import dataclass, field
from typing import Any

from optuna.trial import TrialState

from gan_plugin.errors import UserError

from ..training.outcome import checkpoints_of, drop_periodic, weights_of
from . import PHASES
from .context import Context
from .fine import base_of, fine_plan, phase_of, space_of
from .phases import (
    BABYSIT,
    COARSE,
    CONFIRM,
    FULL,
    OVERFIT,
    Choice,
    Plan,
    babysit_plan,
    coarse_plan,
    confirm_plan,
    full_plan,
    ranking,
    verdict,
    winner,
)
from .table import TOO_SLOW, Row, Table


@dataclass
class Findings:
    """What the study has decided so far.

    Attributes:
        finished: whether all phases are.
        phase: the one that is under way, "" if all are finished.
        can_be_trained: the verdict of the babysitting and its sentence.
        choice: of the coarse search.
        spaces: arm -> what the fine search draws from.
        winner: the trial whose setting full training takes.
    """

    finished: bool = False
    phase: str = ""
    can_be_trained: tuple[bool, str] | None = None
    choice: Choice = field(default_factory=Choice)
    spaces: dict[str, dict[str, Any]] = field(default_factory=dict)
    winner: Row | None = None


def advance(context: Context, table: Table, *, only: str = "", apply: bool = True) -> Findings:
    """Make the trials that the table as it stands asks for, and close those that are over.

    Whoever calls it, and however often, the same table leads to the same trials; callers take turns by a lock.

    Args:
        context: of the study.
        table: its trials.
        only: a phase to stop after.
        apply: False to look without changing anything.

    Returns:
        What has been decided.

    Raises:
        UserError: the study cannot go on, because the model cannot be trained, or every trial of a phase has failed.
    """
    steps = _Steps(context, table, Findings(), apply)
    for name in context.study.phases:
        steps.findings.phase = name
        if not _PLAYED[name](steps, context.study.phases[name]):
            return steps.findings
        if name == only:
            break
    steps.findings.finished, steps.findings.phase = True, ""
    return steps.findings


class _Steps:
    """One method for each phase: plan, apply, and whether the phase is finished."""

    def __init__(self, context: Context, table: Table, findings: Findings, apply: bool) -> None:
        self.findings = findings
        self._context, self._table, self._may_apply = context, table, apply

    def babysit(self, phase: Any) -> bool:
        rows = self._table.rows(BABYSIT)
        if not self._apply(BABYSIT, babysit_plan(self._context, phase, rows), rows):
            return False
        self.findings.can_be_trained = verdict(phase, self._table.rows(BABYSIT).get(OVERFIT))
        good, sentence = self.findings.can_be_trained
        if not good and self._may_apply:
            raise UserError(
                f"{sentence} Correct what is wrong and run `study.py resume DIR --retry-failed`, or lower "
                "phases.babysit.fall and run the study again."
            )
        return good

    def coarse(self, phase: Any) -> bool:
        # A factor that is decided asks for the trials of the next at once.
        rows = self._table.rows(COARSE)
        plan, self.findings.choice = coarse_plan(self._context, phase, rows)
        return self._apply(COARSE, plan, rows)

    def fine(self, phase: Any) -> bool:
        coarse = self._context.study.phases.get(COARSE)
        coarse_rows = self._table.rows(COARSE) if coarse else {}
        finished = True
        for arm in phase.arms:
            rows = self._table.rows(phase_of(arm))
            space = space_of(self._context, phase.arms[arm], coarse_rows)
            self.findings.spaces[arm] = space
            base = base_of(coarse, self.findings.choice)
            plan = fine_plan(self._context, phase, arm, rows, base, space)
            finished &= self._apply(phase_of(arm), plan, rows)
        self.findings.winner = winner(self._context, self._searched(), {})
        return finished

    def confirm(self, phase: Any) -> bool:
        rows = self._table.rows(CONFIRM)
        found = self._searched()
        plan = confirm_plan(self._context, phase, self._context.study.phases["fine"], found, rows)
        finished = self._apply(CONFIRM, plan, rows)
        self.findings.winner = winner(self._context, found, rows)
        return finished

    def full(self, phase: Any) -> bool:
        best = self._best() if phase.best_from == "search" else None
        rows = self._table.rows(FULL)
        return self._apply(FULL, full_plan(self._context, phase, best, rows), rows)

    def _best(self) -> Row | None:
        if self.findings.winner is None and COARSE in self._context.study.phases:
            self.findings.winner = winner(self._context, self._table.rows(COARSE), {})
        return self.findings.winner

    def _searched(self) -> dict[str, Row]:
        fine = self._context.study.phases.get("fine")
        arms = fine.arms if fine else ()
        return {row.name: row for arm in arms for row in self._table.rows(phase_of(arm)).values()}

    def _tidy(self, phase: str) -> None:
        """Of the trials that are over keep the weights of the best one, so that a small disk is enough."""
        if phase == BABYSIT:
            return
        rows = self._table.rows(phase)
        kept = {row.name for row in ranking(self._context, rows)[:1]} | self._needed()
        for row in rows.values():
            folder = self._context.trial_folder(row.name)
            if phase == FULL and not row.is_open:
                drop_periodic(folder)
            elif not row.is_open and row.name not in kept and row.status != TOO_SLOW:
                checkpoints_of(folder, delete=True)

    def _needed(self) -> set[str]:
        """The trials whose weights others start from, or will."""
        of_rows = {name for row in self._table.all_rows().values() if row.is_open for name in row.needs}
        return of_rows | self._context.study.needs

    def _restore(self, rows: dict[str, Row]) -> None:
        """Train complete trials again whose weights have been deleted since, and which another one starts from."""
        known = self._table.all_rows()
        for name in {name for row in rows.values() if row.is_open and not row.is_ready for name in row.needs}:
            parent = known.get(name)
            if parent is None or parent.trial.state != TrialState.COMPLETE:
                continue
            if not weights_of(self._context.trial_folder(name)).is_file():
                self._table.again(parent)

    def _apply(self, phase: str, plan: Plan, rows: dict[str, Row]) -> bool:
        if self._may_apply:
            self._table.want(plan.wanted)
            for row in rows.values():
                if row.name in plan.close:
                    self._table.close(row, plan.close[row.name])
            self._tidy(phase)
            self._restore(rows)
        failed = [row for row in rows.values() if row.is_failed]
        if plan.finished and failed and len(failed) == len(rows) and self._may_apply:
            raise UserError(
                f"Every trial of the phase {phase} has failed; the first: {failed[0].attr('reason', '')} Once that is "
                "corrected, `study.py resume DIR --retry-failed` tries them again."
            )
        return plan.finished


_PLAYED = dict(zip(PHASES, (_Steps.babysit, _Steps.coarse, _Steps.fine, _Steps.confirm, _Steps.full), strict=True))
