"""A worker: takes a trial that nobody else holds, trains it, writes down how it went, and takes the next."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from gan_plugin.comparison.run import TrainNet
from gan_plugin.errors import UserError
from gan_plugin.metrics import iterations_done
from gan_plugin.processes import Stopped, stop_signals_answered, taken
from gan_plugin.rules import whole

from ..training.outcome import (
    DIVERGED,
    OUT_OF_MEMORY,
    Outcome,
    checkpoints_of,
    history_of,
    ramp_loss,
    read_outcome,
    size_gb,
    trained,
)
from . import storage
from .advance import Findings, advance
from .context import CONFIG, PLANNING, SMALLEST_SIDE, Context, arguments_of, environment, shrunk
from .fine import pruner_of
from .status import News, print_line
from .table import TOO_SLOW, Row, Table

PROJECT = Path(__file__).resolve().parents[2]
TOOL = PROJECT / "train_net.py"
_POLL_SECONDS = 0.5
# a trial whose process is killed so often without any progress in between is taken to need too much memory
_KILLS = 3
_NO_TIME = "no time"


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
            say: gets a line for each event, also for those of other workers.
            process: runs the training tool.
            extra_environment: variables for it, such as the GPU that it may use.
        """
        self._context, self._table, self._only, self._say = context, table, only, say
        self._process_type, self._extra = process, extra_environment or {}
        self._news = News(context, table, say)

    def work(self) -> Findings:
        """Work until the phases are finished or the budget is used up; returns what has been decided.

        Raises:
            Stopped: by SIGINT or SIGTERM; the trial has saved a checkpoint.
            UserError: the study cannot go on.
        """
        try:
            with stop_signals_answered(_stop):
                while True:
                    findings = self._plan()
                    if findings is not None and findings.finished:
                        return findings
                    if self.budget_left() <= 0:
                        self._say("The budget of computing time is used up; raise budget.hours, and the study goes on.")
                        return findings or advance(self._context, self._table, only=self._only, apply=False)
                    if not self._do_one():
                        time.sleep(_POLL_SECONDS)
        finally:
            self._news.close()

    def _plan(self) -> Findings | None:
        try:
            with taken(self._context.folder / PLANNING) as lock:
                if lock is None:
                    return None
                self._table.retry_dead(self._lock_of)
                return advance(self._context, self._table, only=self._only)
        finally:
            self._news.tell()

    def _lock_of(self, row: Row) -> AbstractContextManager[int | None]:
        folder = self._context.trial_folder(row.name)
        return taken(folder.with_name(f".{folder.name}.lock"))

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
            if row.is_ready or row.trial.state != TrialState.WAITING:
                continue
            parents = [rows[name] for name in row.needs if name in rows]
            if any(parent.is_failed for parent in parents) or len(parents) < len(row.needs):
                self._fail(row, "failed", f"It starts from {', '.join(row.needs)}, which failed.")
                return True
            if not all(parent.is_ready for parent in parents):
                continue
            with self._lock_of(row) as lock:
                if lock is not None and self._table.begin(row):
                    self._train(self._table.rows(row.phase)[row.key], lock)
                    return True
        return False

    def _train(self, row: Row, lock: int) -> None:
        try:
            self._do(row, self._context.trial_folder(row.name), lock)
        except UpdateFinishedTrialError:
            self._say(f"{row.name}: another worker goes on with it, since this one seemed to be dead.")
        finally:
            self._table.pause(row)

    def _do(self, row: Row, folder: Path, lock: int) -> None:
        self._check_disk()
        if row.attr("fresh"):
            shutil.rmtree(folder, ignore_errors=True)
            self._table.note(row, fresh=False)
        before = iterations_done(folder)
        process = self._process_type(TOOL, arguments_of(self._context, row), folder, self._extra, [lock])
        clock = _Clock(self._table, row)
        end = ""
        try:
            end = self._follow(row, folder, process, clock)
        finally:
            process.stop()
            code = process.wait()
            clock.note()
            self._table.note(row, environment=environment())
        self._settle(row, folder, code, process, end=end, progress=iterations_done(folder) > before)

    def _follow(self, row: Row, folder: Path, process: TrainNet, clock: "_Clock") -> str:
        """Wait for its end, telling Optuna on the way; why it was ended before, "" if it was not."""
        limit = self._context.study.budget.trial_minutes * 60 or float("inf")
        pruner = pruner_of(self._context.study, row.phase)
        told: set[int] = set(row.trial.intermediate_values)
        left = self.budget_left()
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            if clock.seconds > limit:
                return TOO_SLOW
            if clock.since >= min(storage.HEARTBEAT_SECONDS, left):
                clock.note()
                self._news.tell()
                left = self.budget_left()
                if left <= 0:
                    return _NO_TIME
            if pruner is not None:
                new = {k: v for k, v in self._objective_of(folder).items() if k not in told}
                self._table.report(row, new)
                told |= set(new)
                frozen = self._table.rows(row.phase)[row.key].trial
                if new and pruner.prune(self._table.optuna_study(row.phase), frozen):
                    self._table.note(row, pruned=max(new))
                    return ""
        return ""

    def _settle(self, row: Row, folder: Path, code: int, process: TrainNet, *, end: str, progress: bool) -> None:
        outcome = read_outcome(folder)
        current = outcome is not None and outcome.target == row.iterations
        row = self._table.rows(row.phase)[row.key]
        if "pruned" in row.trial.user_attrs:
            self._prune(row, folder)
        elif current and outcome is not None and outcome.is_good and code == 0:
            self._finish(row, folder, outcome)
        elif end == TOO_SLOW:
            self._fail(row, TOO_SLOW, f"It took more than {self._context.study.budget.trial_minutes:g} minutes.")
        elif current and outcome is not None and outcome.status == DIVERGED:
            if not self._finish_ramp(row, folder, outcome):
                self._fail(row, DIVERGED, outcome.reason)
        elif current and outcome is not None and outcome.status == OUT_OF_MEMORY:
            self._retry_smaller(row, folder, outcome.reason)
        elif code == -signal.SIGKILL:
            self._killed(row, folder, progress)
        elif end == _NO_TIME or code in (128 + signal.SIGTERM, 128 + signal.SIGINT, -signal.SIGTERM):
            return
        else:
            self._fail(row, "failed", process.complaint())

    def _finish(self, row: Row, folder: Path, outcome: Outcome) -> None:
        measured = self._objective_of(folder)
        metric = self._context.study.objective
        value = min(measured.values(), default=None) if metric.is_loss else outcome.scores.get(metric.metric)
        is_ramp = bool(row.settings.get("TUNING.LR_RANGE.LOW"))
        if is_ramp:
            value = ramp_loss(folder)
        if value is None and not is_ramp:
            given = {f"val_loss/{name}" for entry in history_of(folder) for name in entry if name != "iteration"}
            known = ", ".join(sorted(given | set(outcome.scores))) or "nothing, because the model has detected nothing"
            self._fail(row, "no score", f"The evaluation gave no {metric.metric}; it gave {known}.")
            return
        values = {**row.attr("values", {}), str(row.iterations): value}
        self._table.report(row, measured if metric.is_loss else {row.iterations: value} if value is not None else {})
        attrs = {"history": self._entries(folder), "values": values, "scores": outcome.scores}
        self._table.note(row, **attrs, outcome=outcome.status, trained=outcome.iterations)
        # last: it says that the rest is there
        self._table.note(row, done=row.iterations)

    def _finish_ramp(self, row: Row, folder: Path, outcome: Outcome) -> bool:
        """An LR-range check is meant to diverge: that is its end."""
        if not row.settings.get("TUNING.LR_RANGE.LOW"):
            return False
        self._table.note(row, outcome=DIVERGED, values={str(row.iterations): ramp_loss(folder)})
        self._table.note(row, trained=outcome.iterations, done=row.iterations)
        return True

    def _objective_of(self, folder: Path) -> dict[int, float]:
        """Finished iterations -> the validation loss that trials are compared by, or that of all parts."""
        loss = self._context.study.objective.loss
        return {int(entry["iteration"]): entry[loss] for entry in history_of(folder) if loss in entry}

    def _entries(self, folder: Path) -> list[dict[str, float]]:
        """What the table keeps of the history."""
        kept = ("iteration", "total", self._context.study.objective.loss)
        return [{name: entry[name] for name in dict.fromkeys(kept) if name in entry} for entry in history_of(folder)]

    def _prune(self, row: Row, folder: Path) -> None:
        measured = self._objective_of(folder)
        done = max(measured, default=0)
        self._table.note(row, history=self._entries(folder), trained=done, done=done)
        self._table.note(row, values={str(done): min(measured.values(), default=None)})
        self._table.close(self._table.rows(row.phase)[row.key], TrialState.PRUNED)
        checkpoints_of(folder, delete=True)

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
        # Another batch or size is another trial: it starts anew.
        self._table.note(row, shrunk={**row.attr("shrunk", {}), **change}, events=events, kills=0, fresh=True)

    def _fail(self, row: Row, status: str, reason: str) -> None:
        folder = self._context.trial_folder(row.name)
        self._table.note(row, status=status, reason=reason, history=self._entries(folder), trained=trained(folder))
        self._table.close(row, TrialState.FAIL)
        if status != TOO_SLOW:
            checkpoints_of(folder, delete=True)

    def _check_disk(self) -> None:
        limit = self._context.study.budget.disk_gb
        if limit and (used := size_gb(self._context.folder)) > limit:
            raise UserError(
                f"{self._context.folder} takes {used:.1f} GB, more than budget.disk_gb ({limit:g}); delete what you do "
                "not need, or raise the limit, and resume."
            )


class _Clock:
    """The computing time of a trial, noted again and again, so that a kill forgets little of it."""

    def __init__(self, table: Table, row: Row) -> None:
        self._table, self._row = table, row
        self._before = row.attr("seconds", 0.0)
        self._started = self._noted = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of all its training so far."""
        return self._before + time.monotonic() - self._started

    @property
    def since(self) -> float:
        """Seconds since the last note."""
        return time.monotonic() - self._noted

    def note(self) -> None:
        """Write the time down, and say that this worker lives."""
        self._noted = time.monotonic()
        self._table.beat(self._row)
        self._table.note(self._row, seconds=round(self.seconds, 1))


def _stop(number: int) -> None:
    raise Stopped(number, "`study.py resume` continues")


def work_together(context: Context, table: Table, workers: int, phase: str = "") -> Findings:
    """Work on a study in this process and in `workers` - 1 others, until it is finished.

    Raises:
        UserError: the study cannot go on.
        Stopped: by a signal.
    """
    whole(1).check("--workers", workers)
    shares = shares_of_machine(workers, context.study.gpus_per_trial)
    only = ["--phase", phase] if phase else []
    helpers = [
        TrainNet(
            PROJECT / "study.py",
            ["work", str(context.folder), *only],
            context.folder / "workers" / str(number),
            share,
            (),
        )
        for number, share in enumerate(shares[1:], start=1)
    ]
    try:
        return Worker(context, table, only=phase, say=print_line, extra_environment=shares[0]).work()
    finally:
        for helper in helpers:
            helper.stop()
        for helper in helpers:
            helper.wait()


def shares_of_machine(workers: int, gpus_per_trial: int) -> list[dict[str, str]]:
    """For each worker of this machine the variables that give it its cores, and its GPUs in turn if there are any."""
    shared: dict[str, str] = {}
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        shared["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if len(gpus) < 2:
        return [shared] * workers
    groups = [gpus[i : i + gpus_per_trial] for i in range(0, len(gpus), gpus_per_trial)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} for i in range(workers)]
