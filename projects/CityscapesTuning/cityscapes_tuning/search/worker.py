"""A worker: takes a trial that nobody else holds, trains it, writes down how it went, and takes the next."""

import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from optuna.trial import TrialState

from gan_plugin.comparison.process import TrainNet
from gan_plugin.errors import UserError
from gan_plugin.locks import taken
from gan_plugin.signals import Stopped, stop_signals_answered

from ..training.outcome import DIVERGED, OUT_OF_MEMORY, Outcome, read_outcome
from .advance import Findings, advance
from .arguments import arguments_of
from .context import CONFIG, Context
from .environment import environment
from .events import checkpoints_of, history_of, iterations_of, ramp_loss, size_gb
from .pruning import pruner_of
from .shrink import SMALLEST_SIDE, shrunk
from .table import Row, Table

TOOL = Path(__file__).resolve().parents[2] / "train_net.py"
_POLL_SECONDS = 0.5
# a trial whose process is killed so often without any progress in between is taken to need too much memory
_KILLS = 3


class Worker:
    """One of the processes that do a study's trials. All are alike: each plans, trains and may be killed."""

    def __init__(
        self,
        context: Context,
        table: Table,
        *,
        only: str = "",
        say: Callable[[str], None] = print,
        process: type[TrainNet] = TrainNet,
        extra_environment: dict[str, str] | None = None,
    ) -> None:
        """
        Args:
            context: of the study.
            table: of its trials.
            only: a phase to stop after.
            say: gets a line for each event.
            process: runs the training tool.
            extra_environment: variables for it, such as the GPU that it may use.
        """
        self._context, self._table, self._only, self._say = context, table, only, say
        self._process_type, self._extra = process, extra_environment or {}

    def work(self) -> Findings:
        """Work until the phases are finished or the budget is used up; returns what has been decided.

        Raises:
            Stopped: by SIGINT or SIGTERM; the trial has saved a checkpoint.
            UserError: the study cannot go on.
        """
        with stop_signals_answered(_stop):
            while True:
                findings = self._plan()
                if findings is not None and findings.finished:
                    return findings
                if self.budget_left() <= 0:
                    self._say("The budget of computing time is used up; the trials so far stay.")
                    return findings or advance(self._context, self._table, only=self._only, apply=False)
                if not self._do_one():
                    time.sleep(_POLL_SECONDS)

    def _plan(self) -> Findings | None:
        with taken(self._context.folder / ".planning") as lock:
            return None if lock is None else advance(self._context, self._table, only=self._only)

    def budget_left(self) -> float:
        """Seconds of computing that are left; infinite without a budget."""
        hours = self._context.study.budget.hours
        if not hours:
            return float("inf")
        return hours * 3600 - sum(row.attr("seconds", 0.0) for row in self._table.all_rows().values())

    def _do_one(self) -> bool:
        """Whether there was a trial to do."""
        rows = self._table.all_rows()
        for row in rows.values():
            if not row.is_open or row.is_ready:
                continue
            parents = [rows[name] for name in row.needs if name in rows]
            if any(parent.is_failed for parent in parents) or len(parents) < len(row.needs):
                self._fail(row, "failed", f"It starts from {', '.join(row.needs)}, which failed.")
                return True
            if not all(parent.is_ready for parent in parents):
                continue
            folder = self._context.trial_folder(row.name)
            with taken(folder.with_name(f".{folder.name}.lock")) as lock:
                # What it was when the list was read may have changed until the lock was ours.
                current = self._table.rows(row.phase).get(row.key)
                if lock is not None and current is not None and current.is_open and not current.is_ready:
                    self._table.begin(current)
                    self._do(current, folder, lock)
                    return True
        return False

    def _do(self, row: Row, folder: Path, lock: int) -> None:
        self._check_disk()
        started, before = time.monotonic(), iterations_of(folder)
        process = self._process_type(TOOL, arguments_of(self._context, row), folder, self._extra, [lock])
        late = False
        try:
            late = self._follow(row, folder, process, started)
        finally:
            process.stop()
            code = process.wait()
            seconds = row.attr("seconds", 0.0) + time.monotonic() - started
            self._table.note(row, seconds=round(seconds, 1), environment=environment())
        self._settle(row, folder, code, process, late=late, progress=iterations_of(folder) > before)

    def _follow(self, row: Row, folder: Path, process: TrainNet, started: float) -> bool:
        """Wait for its end, telling Optuna on the way; whether it was ended for taking too long."""
        limit = self._context.study.budget.trial_minutes * 60
        pruner = pruner_of(self._context.study, row.phase)
        told: set[int] = set(row.trial.intermediate_values)
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            if limit and row.attr("seconds", 0.0) + time.monotonic() - started > limit:
                return True
            if pruner is not None:
                new = {k: v for k, v in history_of(folder).items() if k not in told}
                self._table.report(row, new)
                told |= set(new)
                frozen = self._table.rows(row.phase)[row.key].trial
                if new and pruner.prune(self._table.optuna_study(row.phase), frozen):
                    self._table.note(row, pruned=max(new))
                    return False
        return False

    def _settle(self, row: Row, folder: Path, code: int, process: TrainNet, *, late: bool, progress: bool) -> None:
        outcome = read_outcome(folder)
        current = outcome is not None and outcome.target == row.iterations
        row = self._table.rows(row.phase)[row.key]
        if late:
            self._fail(row, "too slow", f"It took more than {self._context.study.budget.trial_minutes:g} minutes.")
        elif "pruned" in row.trial.user_attrs:
            self._prune(row, folder)
        elif current and outcome is not None and outcome.is_good and code == 0:
            self._finish(row, folder, outcome)
        elif current and outcome is not None and outcome.status == DIVERGED:
            if not self._finish_ramp(row, folder):
                self._fail(row, DIVERGED, outcome.reason)
        elif current and outcome is not None and outcome.status == OUT_OF_MEMORY:
            self._retry_smaller(row, folder, outcome.reason)
        elif code == -signal.SIGKILL:
            self._killed(row, folder, progress)
        elif code in (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM):
            return
        else:
            self._fail(row, "failed", process.complaint())

    def _finish(self, row: Row, folder: Path, outcome: Outcome) -> None:
        history = history_of(folder)
        metric = self._context.study.objective
        value = min(history.values(), default=None) if metric.is_loss else outcome.scores.get(metric.metric)
        if row.settings.get("TUNING.LR_RANGE.LOW"):
            value = ramp_loss(folder)
        if value is None and not metric.is_loss:
            known = ", ".join(sorted(outcome.scores)) or "nothing, because the model has detected nothing"
            self._fail(row, "no score", f"The evaluation gave no {metric.metric}; it gave {known}.")
            return
        values = {**row.attr("values", {}), str(row.iterations): value}
        self._table.report(row, history if metric.is_loss else {row.iterations: value} if value is not None else {})
        attrs = {"history": self._entries(folder), "values": values, "scores": outcome.scores}
        self._table.note(row, **attrs, outcome=outcome.status, trained=outcome.iterations)
        # last: it says that the rest is there
        self._table.note(row, done=row.iterations)
        said = "" if value is None else f", {metric.metric} {value:.4g}"
        self._say(f"{row.name}: {outcome.status} after {outcome.iterations} iterations{said}")

    def _finish_ramp(self, row: Row, folder: Path) -> bool:
        """An LR-range check is meant to diverge: that is its end."""
        if not row.settings.get("TUNING.LR_RANGE.LOW"):
            return False
        self._table.note(row, outcome=DIVERGED, values={str(row.iterations): ramp_loss(folder)}, done=row.iterations)
        self._say(f"{row.name}: the loss exploded, as it should")
        return True

    def _entries(self, folder: Path) -> list[dict[str, float]]:
        return [{"iteration": k, "total": v} for k, v in sorted(history_of(folder).items())]

    def _prune(self, row: Row, folder: Path) -> None:
        history = history_of(folder)
        done = max(history, default=0)
        self._table.note(row, history=self._entries(folder), done=done)
        self._table.note(row, values={str(done): min(history.values(), default=None)})
        self._table.close(self._table.rows(row.phase)[row.key], TrialState.PRUNED)
        checkpoints_of(folder, delete=True)
        self._say(f"{row.name}: pruned after {done} iterations")

    def _killed(self, row: Row, folder: Path, progress: bool) -> None:
        kills = 1 if progress else row.attr("kills", 0) + 1
        self._table.note(row, kills=kills)
        if kills >= _KILLS:
            self._retry_smaller(row, folder, f"It was killed {kills} times without progress, most likely for memory.")

    def _retry_smaller(self, row: Row, folder: Path, reason: str) -> None:
        smaller = shrunk(row.settings, self._context.folder / CONFIG)
        if smaller is None:
            self._fail(row, OUT_OF_MEMORY, f"{reason} It would not fit at {SMALLEST_SIDE} pixels either.")
            return
        change, sentence = smaller
        events = [*row.attr("events", []), f"Out of memory: {sentence}. ({reason})"]
        self._table.note(row, shrunk={**row.attr("shrunk", {}), **change}, events=events, kills=0)
        # Another batch or size is another trial: it starts anew.
        shutil.rmtree(folder, ignore_errors=True)
        self._say(f"{row.name}: out of memory; again with {sentence}")

    def _fail(self, row: Row, status: str, reason: str) -> None:
        self._table.note(row, status=status, reason=reason, history=self._entries(self._context.trial_folder(row.name)))
        self._table.begin(row)
        self._table.close(row, TrialState.FAIL)
        checkpoints_of(self._context.trial_folder(row.name), delete=True)
        self._say(f"{row.name}: {status}. {reason}")

    def _check_disk(self) -> None:
        limit = self._context.study.budget.disk_gb
        if limit and (used := size_gb(self._context.folder)) > limit:
            raise UserError(
                f"{self._context.folder} takes {used:.1f} GB, more than budget.disk_gb ({limit:g}); delete what you do "
                "not need, or raise the limit, and resume."
            )


def _stop(number: int) -> None:
    raise Stopped(number, "`study.py resume` continues")


def print_line(text: str) -> None:
    """A line with the time of day, at once."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
