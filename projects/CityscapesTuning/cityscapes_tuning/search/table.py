"""The table of a study's trials, kept in Optuna's storage, which several processes and machines may share."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

JOURNAL = "trials.journal"
_ENTRY = b'{"op_code"'
_logger = logging.getLogger(__name__)
STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Wanted:
    """A trial that a phase wants to exist, or to train on.

    Attributes:
        phase: the name of the Optuna study, such as "fine-sgd".
        key: its name within the phase, which is also its folder's.
        params: what is searched, for Optuna's plots.
        settings: config keys and their values; a value "@phase/key" stands for that trial's weights.
        iterations: to train until.
        distributions: of `params`; categorical with this one value where there is none.
    """

    phase: str
    key: str
    params: dict[str, Any]
    settings: dict[str, Any]
    iterations: int
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """The trials, as "phase/key", whose weights it starts from."""
        return sorted({v[1:] for v in self.settings.values() if isinstance(v, str) and v.startswith("@")})


@dataclass(frozen=True)
class Row:
    """A trial as the storage knows it."""

    trial: FrozenTrial
    phase: str

    @property
    def key(self) -> str:
        return self.trial.user_attrs["key"]

    @property
    def name(self) -> str:
        """ "phase/key", which is its folder below trials/ too."""
        return f"{self.phase}/{self.key}"

    @property
    def iterations(self) -> int:
        """To train until."""
        return self.trial.user_attrs["iterations"]

    @property
    def done(self) -> int:
        """Iterations trained and measured."""
        return self.trial.user_attrs.get("done", 0)

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.trial.user_attrs["settings"], **self.trial.user_attrs.get("shrunk", {})}

    @property
    def needs(self) -> list[str]:
        return self.trial.user_attrs.get("needs", [])

    @property
    def is_open(self) -> bool:
        return not self.trial.state.is_finished()

    @property
    def is_failed(self) -> bool:
        return self.trial.state == TrialState.FAIL

    @property
    def is_ready(self) -> bool:
        """Whether it has trained as far as it was asked to, or will not train any more."""
        return not self.is_open or self.done >= self.iterations

    @property
    def value(self) -> float | None:
        """The objective after `done` iterations."""
        return self.value_at(self.done)

    def value_at(self, iterations: int) -> float | None:
        """The objective at the end of a stretch of training; None if there was none of this length."""
        value = self.trial.user_attrs.get("values", {}).get(str(iterations))
        return value if value is not None and math.isfinite(value) else None

    def attr(self, name: str, default: Any = None) -> Any:
        """Something that the worker noted: history, scores, seconds, events, status, reason, environment."""
        return self.trial.user_attrs.get(name, default)

    @property
    def status(self) -> str:
        """One word or two: waiting, running, paused, complete, pruned, diverged, out of memory, failed."""
        if self.is_failed:
            return self.attr("status", "failed")
        if self.is_open and self.done:
            return "paused" if self.done >= self.iterations else "promoted"
        return STATES[self.trial.state]


class Table:
    """All trials of a study; one Optuna study for each phase."""

    def __init__(self, storage: BaseStorage, name: str, direction: str = "minimize") -> None:
        """
        Args:
            storage: of Optuna.
            name: of the study, the first part of the names in the storage.
            direction: of the objective.
        """
        self.storage = storage
        self._name, self._direction = name, StudyDirection[direction.upper()]
        self._studies: dict[str, optuna.Study] = {}

    def optuna_study(self, phase: str) -> optuna.Study:
        """Optuna's study of a phase, made if need be."""
        if phase not in self._studies:
            self._studies[phase] = optuna.create_study(
                study_name=f"{self._name}/{phase}",
                storage=self.storage,
                direction=self._direction,
                load_if_exists=True,
            )
        return self._studies[phase]

    def phases(self) -> list[str]:
        """The phases that have been begun, in that order."""
        prefix = f"{self._name}/"
        studies = sorted(self.storage.get_all_studies(), key=lambda study: study._study_id)
        return [s.study_name.removeprefix(prefix) for s in studies if s.study_name.startswith(prefix)]

    def rows(self, phase: str) -> dict[str, Row]:
        """Key -> trial, in the order in which they were made."""
        trials = self.optuna_study(phase).get_trials(deepcopy=False)
        return {trial.user_attrs["key"]: Row(trial, phase) for trial in trials if "key" in trial.user_attrs}

    def all_rows(self) -> dict[str, Row]:
        """ "phase/key" -> trial."""
        return {row.name: row for phase in self.phases() for row in self.rows(phase).values()}

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Make the trials that are missing, and let those train on that are asked for more iterations."""
        for phase in dict.fromkeys(entry.phase for entry in wanted):
            rows = self.rows(phase)
            for entry in (entry for entry in wanted if entry.phase == phase):
                row = rows.get(entry.key)
                if row is None:
                    self._add(entry)
                elif row.is_open and row.iterations < entry.iterations:
                    self.note(row, iterations=entry.iterations)

    def _add(self, wanted: Wanted) -> None:
        known = {
            name: wanted.distributions.get(name, optuna.distributions.CategoricalDistribution([value]))
            for name, value in wanted.params.items()
        }
        attrs = {
            "key": wanted.key,
            "settings": wanted.settings,
            "iterations": wanted.iterations,
            "needs": wanted.needs,
        }
        trial = create_trial(state=TrialState.WAITING, params=wanted.params, distributions=known, user_attrs=attrs)
        self.optuna_study(wanted.phase).add_trial(trial)

    def note(self, row: Row, **attrs: Any) -> None:
        """Set user attributes of a trial."""
        for name, value in attrs.items():
            self.storage.set_trial_user_attr(row.trial._trial_id, name, value)

    def begin(self, row: Row) -> None:
        """Mark a trial as running; its lock must be held."""
        if row.trial.state == TrialState.WAITING:
            self.storage.set_trial_state_values(row.trial._trial_id, TrialState.RUNNING)

    def report(self, row: Row, values: Mapping[int, float]) -> None:
        """Give Optuna the objective after some iterations; what it knows is not sent again."""
        for step, value in values.items():
            if step not in row.trial.intermediate_values:
                self.storage.set_trial_intermediate_value(row.trial._trial_id, step, value)

    def close(self, row: Row, state: TrialState) -> None:
        """Finish a trial for good; one that another process has finished meanwhile stays as it is."""
        values = [row.value] if state != TrialState.FAIL and row.value is not None else None
        if state == TrialState.COMPLETE and values is None:
            state = TrialState.FAIL
        try:
            self.storage.set_trial_state_values(row.trial._trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Optuna's storage: a journal in `folder`, which processes on several machines may append to, or a database.

    Args:
        url: "" for the journal, or an RDB's such as "sqlite:////home/me/study.db" or "postgresql://...".
        folder: of the study.

    Raises:
        UserError: the database cannot be opened, or the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not url:
        file = str(folder / JOURNAL)
        lock = JournalFileOpenLock(file)
        _mend_journal(folder / JOURNAL, lock)
        return JournalStorage(JournalFileBackend(file, lock_obj=lock))
    try:
        return optuna.storages.get_storage(url)
    except Exception as error:
        raise UserError(f"The storage {url} cannot be opened ({' '.join(str(error).split())[:200]}).") from error


def _mend_journal(file: Path, lock: JournalFileOpenLock) -> None:
    """Drop the half lines that a kill or a full disk has left, over which Optuna would stumble.

    Raises:
        UserError: a line is damaged in another way, and those after it may build on it.
    """
    if not file.is_file() or all(map(_is_entry, file.read_bytes().splitlines(keepends=True))):
        return
    # held, nobody is in the midst of writing: what is half now stays half
    lock.acquire()
    try:
        lines = file.read_bytes().splitlines(keepends=True)
        sound = b"".join(_sound(file, number, line, number == len(lines)) for number, line in enumerate(lines, start=1))
        write_whole(file, lambda opened: opened.write(sound), "Free some disk space, or make the folder writable.")
    finally:
        lock.release()
    _logger.warning("%s has half a line, as a kill leaves it, which is dropped.", file)


def _sound(file: Path, number: int, line: bytes, is_last: bool) -> bytes:
    """A line without what is half of it: all of the last one, or what a whole entry has been appended to."""
    begun = line.rfind(_ENTRY)
    if _is_entry(line):
        return line
    if begun > 0 and _is_entry(line[begun:]):
        return line[begun:]
    if not is_last:
        raise UserError(f"{file}, line {number} is damaged; restore the file, or begin the study anew.")
    return b""


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
