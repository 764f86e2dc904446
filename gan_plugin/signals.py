"""Answers to Ctrl-C and SIGTERM."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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
