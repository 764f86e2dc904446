"""Ctrl-C and SIGTERM end a run after the current iteration, with a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase

from ..distributed import any_process

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WORKER_SECONDS = 600


# inherited by the processes that are forked while it is set
_forking_workers = False
_at_fork = threading.local()


class TrainingInterrupted(BaseException):
    """A signal ended the run; the checkpoint is on disk. Not an error, so TrainerBase logs no traceback."""

    def __init__(self, signum: int, iteration: int, checkpoint: str) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"Stopped by {name} after iteration {iteration}; saved {checkpoint}. Continue with --resume.")
        self.exit_code = 128 + signum


class _LeaveBlock(BaseException):
    """Raised by the signal handler to leave a block that may be left anywhere."""


class StopOnSignal(HookBase):
    """Saves a checkpoint and raises TrainingInterrupted at the end of the iteration in which a signal came.

    A second signal acts at once, as if the hook were not there. The trainer calls `restore` when all is over.
    """

    def __init__(self, checkpointer: DetectionCheckpointer) -> None:
        """
        Args:
            checkpointer: writes the checkpoint.
        """
        self._checkpointer = checkpointer
        self._owner = os.getpid()
        self._received: int | None = None
        self._may_leave = False
        self._before: dict[int, Any] = {}

    def before_train(self) -> None:
        # Python delivers signals to the main thread only, and only it may set handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def after_step(self) -> None:
        # One process may have got the signal alone, and none may stop without the others.
        if not any_process(self._received is not None, self._device()):
            return
        self._received = self._received or signal.SIGTERM
        iteration = self.trainer.iter
        if iteration < self.trainer.max_iter:
            self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        saved = self._checkpointer.get_checkpoint_file()
        raise TrainingInterrupted(self._received, iteration, saved)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block, which must leave the trainer's state alone, a signal does not wait for the iteration's end.

        Whatever the block raises after a signal, such as the loss of its own workers, is part of being stopped.
        """
        self._may_leave = True
        try:
            yield
        except _LeaveBlock:
            pass
        except Exception:
            if self._received is None:
                raise
        finally:
            self._may_leave = False
        self.after_step()

    def _device(self) -> torch.device:
        return next(self.trainer.model.parameters()).device

    def restore(self) -> None:
        """Put back the signal handlers that were there before training."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # in a data loader's worker that has just been forked
        self._received = signum
        self.restore()
        if self._may_leave:
            raise _LeaveBlock


@contextmanager
def forking_workers() -> Iterator[None]:
    """The children forked within the block ignore a signal until they call `outlive_one_signal`."""
    global _forking_workers
    _forking_workers = True
    try:
        yield
    finally:
        _forking_workers = False


def _hold_signals() -> None:
    _at_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _let_signals_go() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _at_fork.mask)


def _drop_handlers_in_child() -> None:
    if not _forking_workers:
        for number in _SIGNALS:
            if getattr(signal.getsignal(number), "__func__", None) is StopOnSignal._note:
                signal.signal(number, signal.SIG_DFL)
    _let_signals_go()


# A pool, such as the one that reads Cityscapes' annotations, ends its workers by SIGTERM and waits for them. A handler
# in Python is no answer: what comes before the child's interpreter is up, or just before it waits for a lock, is lost.
os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_drop_handlers_in_child)


def outlive_one_signal() -> None:
    """Let a data loader's worker, in whose main thread this is called, survive the first SIGINT or SIGTERM.

    A terminal and many batch systems signal the whole process group, and a worker that dies takes the trainer's data
    away before it can end its iteration. The second signal ends the worker, and so does time if nobody else does.
    """

    def note(signum: int, frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(_WORKER_SECONDS)

    for number in _SIGNALS:
        signal.signal(number, note)
