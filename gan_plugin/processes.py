"""Locks between processes, and answers to Ctrl-C and SIGTERM."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


def take(lock: int) -> bool:
    """Take the lock of the open file `lock` if nobody else holds it; whether it was free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


@contextmanager
def taken(file: Path) -> Iterator[int | None]:
    """Within the block hold the lock of `file`, which is made if need be, unless somebody else does.

    Yields:
        Its file descriptor, or None if it was not free. A process that inherits the descriptor keeps the lock for as
        long as it lives.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield lock if take(lock) else None
    finally:
        os.close(lock)


@contextmanager
def stop_signals_answered(answer: Callable[[int], None]) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM call `answer` with their number; what answered them before is put back.

    In any but the main thread, where Python takes no handlers, nothing changes.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        answer(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_ctrl_c_to_parent(*_: object) -> None:
    """Begin a worker process: a terminal sends Ctrl-C to it too, but its parent answers, in one line, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Stopped(Exception):
    """A signal has ended the work before its time; what is finished is kept.

    Attributes:
        exit_code: what a shell expects of a process that the signal has ended.
    """

    def __init__(self, number: int, advice: str = "the same command continues") -> None:
        self.exit_code = 128 + number
        super().__init__(f"Stopped by {signal.Signals(number).name}; {advice}.")


def raise_stopped(number: int) -> None:
    """An answer for `stop_signals_answered`.

    Raises:
        Stopped: always.
    """
    raise Stopped(number)
