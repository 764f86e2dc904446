"""All runs of a plan, some at a time, by one call or by several that share a folder.

Each is a process of tools/train_net.py; how far it has come is read from its folder, whoever or whatever ended it.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gan_plugin.engine.checkpoint import FINAL, checkpoint_file, periodic_checkpoints
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import write_whole
from gan_plugin.metrics import final_scores, iterations_done
from gan_plugin.processes import raise_stopped, stop_signals_answered, take, taken

from .plan import Plan, Run, extended

PLAN = "plan.json"
CONFIG = "config.yaml"
_LOCK = ".lock"
# collecting results and drawing a report takes that long at most
_PATIENCE_SECONDS = 120
# says that the evaluation has ended without any metric that is defined
_NO_SCORES = "no_scores.txt"
_CONSOLE = "console.txt"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.5
# between two lines of progress in a log file
_LOG_SECONDS = 30
_LOCKS = ".locks"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block no other call writes the plan or the results in `folder`, which is made if need be.

    Raises:
        UserError: it is no writable folder, or another call does not end.
    """
    with as_user_error(f"The output {folder} is not writable", "set --output to a folder you may write to", OSError):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        _wait_for(lock, folder)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, folder: Path) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not take(lock):
        if time.monotonic() > end:
            raise UserError(f"Another call is at work in {folder}; wait for its end, or stop it.")
        time.sleep(0.2)


def known_plan(folder: Path, asked: Plan) -> Plan:
    """`asked` together with the plan that `folder` already has; nothing is written.

    Raises:
        UserError: the two differ in more than arms and seeds, or the folder holds something else.
    """
    file = folder / PLAN
    if file.is_file():
        with as_user_error(f"{file} cannot be read", "choose another --output"):
            former = Plan.from_dict(json.loads(file.read_text(encoding="utf-8")))
        return extended(former, asked, str(folder))
    if folder.is_dir() and any(entry.name not in (_LOCK, f"{PLAN}.part") for entry in folder.iterdir()):
        raise UserError(f"{folder} holds files that are not of a comparison; choose another --output.")
    return asked


def save_plan(folder: Path, plan: Plan) -> None:
    """Write the plan and the config that its runs read; files that are right already are not touched."""
    write_if_new(folder / PLAN, json.dumps(plan.to_dict(), indent=1))
    write_if_new(folder / CONFIG, plan.config)


def write_if_new(file: Path, text: str) -> None:
    """Make `text` the content of `file`, which keeps its time of change if that is what it holds.

    Raises:
        UserError: it cannot be written.
    """
    content = text.encode()
    if not file.is_file() or file.read_bytes() != content:
        write_whole(file, content)


class State(Enum):
    """What is left to do for a run."""

    TRAIN = auto()
    EVALUATE = auto()
    FINISHED = auto()


def state_of(folder: Path, iterations: int) -> State:
    """What is left to do in `folder` for a run of `iterations`."""
    if final_scores(folder, iterations) or (folder / _NO_SCORES).is_file():
        return State.FINISHED
    return State.EVALUATE if checkpoint_file(folder, FINAL).is_file() else State.TRAIN


def settle(folder: Path, iterations: int) -> None:
    """Note that a run has ended well, and drop the checkpoints that only served to continue it."""
    if not final_scores(folder, iterations):
        (folder / _NO_SCORES).write_text("The evaluation gave no metric: the model has detected nothing.\n")
    if checkpoint_file(folder, FINAL).is_file():
        for file in periodic_checkpoints(folder).values():
            file.unlink()


def arguments_of(run: Run, output: Path) -> list[str]:
    """The command line of tools/train_net.py that does what is left of `run`, which is not finished."""
    folder = output / run.name
    settings: dict[str, Any] = {**run.settings, "OUTPUT_DIR": str(folder)}
    # continues the training, or makes up for a final evaluation that was lost
    flags = ["--resume"] if folder.exists() else []
    if run.parent:
        settings["MODEL.WEIGHTS"] = str(checkpoint_file(output / run.parent, FINAL))
    return ["--config-file", str(output / CONFIG), *flags, *key_values(settings)]


def key_values(settings: Mapping[str, Any]) -> list[str]:
    """KEY VALUE pairs; quoted, so that a folder named 123 stays a string."""
    return [part for key, value in settings.items() for part in (key, repr(value))]


class TrainNet:
    """A process of tools/train_net.py, whose output goes to console.txt in its folder.

    It has a session of its own, so that a terminal's Ctrl-C reaches it once, through us; and on Linux it is stopped
    when this process is killed.
    """

    def __init__(
        self,
        tool: Path,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        keep_open: Sequence[int],
    ) -> None:
        """
        Args:
            tool: path of train_net.py.
            arguments: its command line.
            folder: of the run; made if need be.
            environment: variables besides those of this process.
            keep_open: file descriptors that it inherits.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._console = folder / _CONSOLE
        with open(self._console, "wb") as console:
            self._process = subprocess.Popen(
                [sys.executable, str(tool), *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(keep_open),
                start_new_session=True,
                preexec_fn=_end_with_the_parent(),
            )

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait()

    def stop(self) -> None:
        """Ask it to save a checkpoint and end."""
        if self.poll() is None:
            self._process.terminate()

    def complaint(self) -> str:
        """The sentence that it ended with."""
        text = self._console.read_text(encoding="utf-8", errors="replace") if self._console.is_file() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        if sentences:
            return sentences[-1]
        code = self.wait()
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"It {end}; its last line is: {lines[-1] if lines else 'none'} (see {self._console})."


def _end_with_the_parent() -> Any:
    # prctl(2); looked up before the fork, after which only the call itself is safe
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def execute(plan: Plan, output: Path, tool: Path, *, jobs: int) -> dict[str, str]:
    """Do what is left of `plan`.

    Several calls, on one machine or on several that share `output`, do it together: a run belongs to the call that has
    its lock, and its process keeps the lock for as long as it lives. A call ends when all runs have.

    Args:
        plan: whose runs go to `output`/<name of the run>.
        output: with the plan's config in it.
        tool: path of train_net.py.
        jobs: runs at a time of this call, 1 or more.

    Returns:
        Name of the run -> why it failed here. A failed run keeps no other from running, except those that start from
        it.

    Raises:
        Stopped: by SIGINT or SIGTERM; the runs have been stopped and can be continued.
    """
    with stop_signals_answered(raise_stopped), _Queue(plan, output, tool, jobs) as queue:
        while queue.step():
            time.sleep(_POLL_SECONDS)
        return queue.failures


class _Queue:
    """The runs that wait, those that are active, and the progress of all."""

    def __init__(self, plan: Plan, output: Path, tool: Path, jobs: int) -> None:
        self.failures: dict[str, str] = {}
        self._output, self._tool = output, tool
        runs = plan.runs()
        self._waiting = [run for run in runs if state_of(output / run.name, run.iterations) is not State.FINISHED]
        self._finished = {run.name for run in runs} - {run.name for run in self._waiting}
        self._slots: dict[int, tuple[Run, TrainNet, float] | None] = dict.fromkeys(range(jobs))
        self._environments = _environments(jobs, plan)
        self._done = {run.name: run.iterations if run.name in self._finished else self._seen(run) for run in runs}
        self._bar = tqdm(
            total=sum(run.iterations for run in runs),
            initial=sum(self._done.values()),
            unit="it",
            desc=f"{len(self._waiting)} of {len(runs)} runs to do",
            mininterval=0.5 if sys.stderr.isatty() else _LOG_SECONDS,
        )

    def __enter__(self) -> "_Queue":
        return self

    def __exit__(self, *_: object) -> None:
        active = [slot[1] for slot in self._slots.values() if slot]
        for process in active:
            process.stop()
        for process in active:
            process.wait()
        self._bar.close()

    def step(self) -> bool:
        """Collect what has ended, start what can be; False once there is nothing left."""
        for slot, entry in self._slots.items():
            if entry is not None:
                self._follow(slot, *entry)
            if self._slots[slot] is None:
                self._fill(slot)
        return any(self._slots.values()) or bool(self._waiting)

    def _fill(self, slot: int) -> None:
        """Start the first run that can be started and is nobody else's."""
        for run in list(self._waiting):
            if run.parent in self.failures:
                self._waiting.remove(run)
                self._fail(run, f"It was not started, because {run.parent} failed.")
            elif run.parent is None or run.parent in self._finished:
                with taken(self._output / _LOCKS / run.name) as lock:
                    if lock is None:
                        self._advance(run, self._seen(run))
                        continue
                    self._waiting.remove(run)
                    # asked with the lock in hand: until then another call may have been at work on it
                    if state_of(self._output / run.name, run.iterations) is not State.FINISHED:
                        self._start(slot, run, lock)
                        return
                self._finished.add(run.name)
                self._advance(run, run.iterations)

    def _start(self, slot: int, run: Run, lock: int) -> None:
        folder, arguments = self._output / run.name, arguments_of(run, self._output)
        process = TrainNet(self._tool, arguments, folder, self._environments[slot], [lock])
        self._slots[slot] = (run, process, time.monotonic())

    def _follow(self, slot: int, run: Run, process: TrainNet, start: float) -> None:
        # asked before the files are read: what it wrote at its end is then there
        code = process.poll()
        self._advance(run, self._seen(run))
        if code is None:
            return
        self._slots[slot] = None
        if code:
            self._fail(run, process.complaint())
            return
        settle(self._output / run.name, run.iterations)
        self._finished.add(run.name)
        self._advance(run, run.iterations)
        self._bar.write(f"{run.name}: done in {time.monotonic() - start:.0f} s", file=sys.stderr)

    def _fail(self, run: Run, sentence: str) -> None:
        self.failures[run.name] = sentence
        self._bar.write(f"{run.name}: failed. {sentence}", file=sys.stderr)

    def _seen(self, run: Run) -> int:
        return min(iterations_done(self._output / run.name), run.iterations)

    def _advance(self, run: Run, done: int) -> None:
        self._bar.update(max(0, done - self._done[run.name]))
        self._done[run.name] = max(done, self._done[run.name])


def _environments(jobs: int, plan: Plan) -> list[dict[str, str]]:
    """For each of the jobs that run at a time its share of the cores, and a GPU in turn if the plan uses one."""
    shared: dict[str, str] = {}
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        shared["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if gpus == [""]:
        gpus = [str(number) for number in range(torch.cuda.device_count())]
    if len(gpus) < 2 or "DEVICE: cuda\n" not in plan.config:
        return [shared] * jobs
    return [{**shared, "CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]
