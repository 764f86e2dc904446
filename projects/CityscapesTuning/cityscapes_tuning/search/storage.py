"""Optuna's storage of a study: a journal in its folder, or a database; and how the trials of dead workers come back."""

import fcntl
import json
import logging
import os
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

JOURNAL = "trials.journal"
# a worker of a database says so often that it lives, and is taken for dead after a silence so long
HEARTBEAT_SECONDS, SILENCE_SECONDS = 10, 40
_SQLITE = re.compile(r"sqlite(\+\w+)?:///")
_PATIENCE_SECONDS = 60
_ENTRY = b'{"op_code"'
_ADVICE = "Free some disk space, or make the folder writable, and resume."
_logger = logging.getLogger(__name__)
# heartbeats, for years by now
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
_again = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)


def open_storage(url: str, folder: Path) -> BaseStorage:
    """Optuna's storage: a journal in `folder`, which processes on several machines may append to, or a database.

    Args:
        url: "" for the journal, or an RDB's such as "sqlite:///study.db" or "postgresql://..."; the file of SQLite is
            looked for from `folder` on.
        folder: of the study.

    Raises:
        UserError: the database cannot be opened, or the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not url:
        file = folder / JOURNAL
        lock = _JournalLock(file)
        _mend(file, lock)
        return JournalStorage(_Journal(str(file), lock_obj=lock))
    arguments: dict[str, Any] = {}
    if local := _SQLITE.match(url):
        url = f"{local[0]}{folder / url[local.end() :]}"
        arguments = {"connect_args": {"timeout": _PATIENCE_SECONDS}}
    try:
        database = RDBStorage(
            url,
            arguments,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=SILENCE_SECONDS,
            heartbeat_stale_trial_callback=_again,
        )
        return optuna.storages.get_storage(database)
    except Exception as error:
        raise UserError(f"The storage {url} cannot be opened ({' '.join(str(error).split())[:200]}).") from error


def retry_dead(study: optuna.Study, lock_of: Callable[[FrozenTrial], AbstractContextManager[int | None]]) -> None:
    """Let the trials whose worker has died wait for another one, as attempts that go on from their checkpoints.

    A database knows them by their heartbeat, which serves machines without common locks too; a journal has none, but
    the lock of a trial's folder goes with its worker.

    Args:
        study: of Optuna; nobody else may do the same at this time.
        lock_of: holds the lock of a trial; gives None if somebody else does.
    """
    if hasattr(study._storage, "record_heartbeat"):
        optuna.storages.fail_stale_trials(study)
        return
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        with lock_of(trial) as lock:
            # its worker may have come to its end since the list was read
            if lock is not None and study._storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
                study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                _again(study, trial)


class _JournalLock(JournalFileOpenLock):
    """The lock of the journal. It goes with the process that holds it, and who takes it finds whole lines only."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._file = -1

    def acquire(self) -> bool:
        self._file = os.open(f"{self._journal}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._cut_half_line()
        return True

    def release(self) -> None:
        os.close(self._file)

    def _cut_half_line(self) -> None:
        """What a kill or a full disk has left at the end, to which the next entry would be appended."""
        try:
            with open(self._journal, "rb+") as file:
                end = file.seek(0, os.SEEK_END)
                if not end or (file.seek(end - 1), file.read(1))[1] == b"\n":
                    return
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        except FileNotFoundError:
            return
        _logger.warning("%s has half a line, as a kill leaves it, which is dropped.", self._journal)


class _Journal(JournalFileBackend):
    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise UserError(f"{self._file_path} could not be written ({error.strerror}). {_ADVICE}") from error


def _mend(file: Path, lock: _JournalLock) -> None:
    """Drop the half lines that are in the midst, over which Optuna would stumble.

    Raises:
        UserError: a line is damaged in another way, and those after it may build on it.
    """
    if not file.is_file() or all(map(_is_entry, file.read_bytes().splitlines(keepends=True))):
        return
    # held, nobody is in the midst of writing: what is half now stays half
    lock.acquire()
    try:
        lines = file.read_bytes().splitlines(keepends=True)
        sound = [_sound(file, number, line, number == len(lines)) for number, line in enumerate(lines, start=1)]
        if sound != lines:
            write_whole(file, b"".join(sound), _ADVICE)
            _logger.warning("%s has half a line, as a kill leaves it, which is dropped.", file)
    finally:
        lock.release()


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
