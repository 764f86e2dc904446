"""The processes of a training: their random states, what they owe each other, and how a signal ends them.

DistributedDataParallel averages the gradients of one backward pass; the rest is done here. Ctrl-C and SIGTERM end a run
after the current iteration, with a checkpoint.
"""

import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.distributed
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase, create_ddp_model
from detectron2.utils import comm
from torch import nn

from gan_plugin.layers.layout import laid_out_like

# Elements of a bucket (100 MB in float32): bounds the memory of the copy.
_BUCKET = 25_000_000
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WORKER_SECONDS = 600
# inherited by the processes that are forked while it is set
_forking_workers = False
_at_fork = threading.local()


def capture_rng_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators (and the current GPU's, if one is in use).

    Only tensors and plain Python values, so that a checkpoint with it loads under `weights_only`.
    """
    legacy: Any = np.random.get_state()
    _, keys, position, has_gauss, cached = legacy
    state = {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_rng_state(state: dict[str, Any]) -> None:
    """Set every global generator to a state that `capture_rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """Leave the global generators as they were, whatever the block draws; inside they start from `seed` if given."""
    state = capture_rng_state()
    try:
        if seed is not None:
            _seed(seed)
        yield
    finally:
        restore_rng_state(state)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed would leave seeds for GPUs that are not in use yet, which nothing takes back, and note the call
    # stack for each, which takes milliseconds.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)


def wrap_for_processes(model: nn.Module, **options: Any) -> nn.Module:
    """The model in DistributedDataParallel if there are several processes.

    Args:
        model: on its device.
        options: of Detectron2's `create_ddp_model`.
    """
    # On a CPU there is no device to name, and Detectron2 would name one.
    devices = {"device_ids": None} if next(model.parameters()).device.type == "cpu" else {}
    return create_ddp_model(model, **devices, **options)


def share_weights(model: nn.Module) -> None:
    """Give every process the parameters and buffers of the first one, as DistributedDataParallel does at its start."""
    if comm.get_world_size() > 1:
        for tensor in model.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes; a missing one counts as zero.

    The parameters must come in the same order in every process. DistributedDataParallel would do so during backward,
    but only for a module's own `forward`, once, with one loss.
    """
    world = comm.get_world_size()
    if world == 1:
        return
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for bucket in _buckets(learning):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        parts = (flat / world).split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(bucket, parts, strict=True):
            parameter.grad = laid_out_like(part.view_as(parameter), parameter)


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is set in any process; all must ask."""
    if comm.get_world_size() == 1:
        return flag
    tensor = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(tensor)
    return bool(tensor > 0)


def _buckets(parameters: list[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and (size + parameter.numel() > _BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    if bucket:
        yield bucket


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
