"""The table of a study's trials, kept in Optuna's storage, which several processes and machines may share."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from .storage import retry_dead

# what a trial may use does not change what it gives
_FREE = ("TUNING.MEMORY_GB",)
# what an attempt keeps of the one before it; all other attributes are its own
_LASTING = ("key", "settings", "iterations", "needs", "labels", "space", "seconds")
_NAMED = 3
TOO_SLOW = "too slow"
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
        params: numbers that are searched; texts and what else names it.
        settings: config keys and their values; a value "@phase/key" stands for that trial's weights.
        iterations: to train until.
        space: number that is searched -> lowest, highest, whether it is drawn logarithmically.
    """

    phase: str
    key: str
    params: dict[str, Any]
    settings: dict[str, Any]
    iterations: int
    space: dict[str, tuple[float, float, bool]] = field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """The trials, as "phase/key", whose weights it starts from."""
        return sorted({v[1:] for v in self.settings.values() if isinstance(v, str) and v.startswith("@")})


@dataclass(frozen=True)
class Row:
    """A trial as the storage knows it: the last attempt at it, if there were several."""

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
    def params(self) -> dict[str, Any]:
        """What distinguishes it within its phase: names, and the numbers that are searched."""
        numbers = self.trial.params or self.trial.system_attrs.get("fixed_params", {})
        return {**self.attr("labels", {}), **numbers}

    @property
    def iterations(self) -> int:
        """To train until."""
        return self.trial.user_attrs["iterations"]

    @property
    def done(self) -> int:
        """Up to which of the iterations that were asked for it is done and measured."""
        return self.trial.user_attrs.get("done", 0)

    @property
    def trained(self) -> int:
        """Iterations that it has really trained: fewer than asked for where it stopped early, or failed."""
        return self.attr("trained", self.done)

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
    def is_begun(self) -> bool:
        """Whether something of it has been trained, or is being."""
        return self.trial.state != TrialState.WAITING or self.done > 0

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
    """All trials of a study; one Optuna study for each phase.

    A trial is enqueued, asked for by whoever trains it next, and told its end. Between two stretches of training it
    waits. What has to be done once more is another attempt under the same key; the former ones stay in the storage.
    """

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
                # it draws nothing: every point is planned
                sampler=optuna.samplers.RandomSampler(),
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
        """Key -> trial, in the order in which they were first made."""
        trials = self.optuna_study(phase).get_trials(deepcopy=False)
        return {trial.user_attrs["key"]: Row(trial, phase) for trial in trials if "key" in trial.user_attrs}

    def all_rows(self) -> dict[str, Row]:
        """ "phase/key" -> trial."""
        return {row.name: row for phase in self.phases() for row in self.rows(phase).values()}

    def want(self, wanted: Sequence[Wanted]) -> None:
        """Make the trials that are missing, and let those train on that are asked for more iterations.

        A begun trial is made anew if what it follows from has been decided otherwise meanwhile.
        """
        for phase in dict.fromkeys(entry.phase for entry in wanted):
            rows = self.rows(phase)
            for entry in (entry for entry in wanted if entry.phase == phase):
                row = rows.get(entry.key)
                if row is None:
                    self._enqueue(entry, {})
                elif changed := _changed(row.trial.user_attrs["settings"], entry.settings):
                    # what nobody has begun gives way as well
                    if row.is_open:
                        self.close(row, TrialState.FAIL)
                    said = f"Made anew with another {' and '.join(changed[:_NAMED])}, as was decided since."
                    events = {"events": [said]} if row.is_begun else {}
                    self._enqueue(entry, {"seconds": row.attr("seconds", 0.0), "fresh": True, **events})
                elif row.is_open and row.iterations < entry.iterations:
                    self.note(row, iterations=entry.iterations)

    def _enqueue(self, wanted: Wanted, more: Mapping[str, Any]) -> None:
        numbers = {name: wanted.params[name] for name in wanted.space}
        attrs = {
            "key": wanted.key,
            "settings": wanted.settings,
            "iterations": wanted.iterations,
            "needs": wanted.needs,
            "labels": {name: value for name, value in wanted.params.items() if name not in numbers},
            "space": {name: list(bounds) for name, bounds in wanted.space.items()},
            **more,
        }
        self.optuna_study(wanted.phase).enqueue_trial(numbers, user_attrs=attrs)

    def begin(self, row: Row) -> bool:
        """Take a waiting trial to train it, its folder's lock being held; whether nobody was faster."""
        # before it runs: one that runs without ever having said that it lives would never be missed
        self.beat(row)
        if not self.storage.set_trial_state_values(row.trial._trial_id, TrialState.RUNNING):
            return False
        trial = Trial(self.optuna_study(row.phase), row.trial._trial_id)
        for name, (low, high, log) in row.attr("space", {}).items():
            # a scale that has been changed between two runs is refused; then the number is in the table alone
            with suppress(ValueError):
                trial.suggest_float(name, low, high, log=log)
        return True

    def beat(self, row: Row) -> None:
        """Say that the worker of a trial lives."""
        beat: Callable[[int], None] | None = getattr(self.storage, "record_heartbeat", None)
        if beat is not None:
            beat(row.trial._trial_id)

    def pause(self, row: Row) -> None:
        """Let a trial wait: for another stretch of training, or for its end."""
        now = self.rows(row.phase)[row.key].trial
        if now._trial_id == row.trial._trial_id and now.state == TrialState.RUNNING:
            self.storage.set_trial_state_values(row.trial._trial_id, TrialState.WAITING)

    def note(self, row: Row, **attrs: Any) -> None:
        """Set user attributes of a trial."""
        for name, value in attrs.items():
            self.storage.set_trial_user_attr(row.trial._trial_id, name, value)

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
        except UpdateFinishedTrialError:
            return

    def again(self, row: Row) -> None:
        """Enqueue another attempt at a trial that is over; one that took too long goes on, others begin anew."""
        attrs = {name: row.attr(name) for name in _LASTING if row.attr(name) is not None}
        numbers = {name: row.params[name] for name in row.attr("space", {})}
        attrs["labels"] = {name: value for name, value in row.params.items() if name not in numbers}
        attrs["fresh"] = row.status != TOO_SLOW
        self.optuna_study(row.phase).enqueue_trial(numbers, user_attrs=attrs)

    def retry_dead(self, lock_of: Callable[[Row], AbstractContextManager[int | None]]) -> None:
        """Let the trials whose worker has died wait for another one.

        Args:
            lock_of: holds the lock of a trial's folder; gives None if somebody else does.
        """
        for phase in self.phases():
            retry_dead(self.optuna_study(phase), lambda trial, phase=phase: lock_of(Row(trial, phase)))  # type: ignore[misc]


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Config keys that two settings of a trial have different values for."""
    plain = json.loads(json.dumps(now))
    keys = [key for key in {**before, **plain} if key not in _FREE]
    return [key for key in keys if before.get(key, _NOTHING) != plain.get(key, _NOTHING)]


_NOTHING = object()
