"""All runs of a plan, some at a time, by one call or by several that share a folder."""

import os
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from gan_plugin.metrics import iterations_done
from gan_plugin.processes import raise_stopped, stop_signals_answered, taken

from .plan import Plan, Run
from .process import TrainNet, arguments_of
from .state import State, settle, state_of

_POLL_SECONDS = 0.5
# between two lines of progress in a log file
_LOG_SECONDS = 30
_LOCKS = ".locks"


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
