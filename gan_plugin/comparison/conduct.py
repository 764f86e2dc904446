"""A comparison from its plan to its report, and how long that will take, from a few timed iterations."""

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_plugin.errors import UserError
from gan_plugin.metrics import iterations_done, read_metrics

from .plan import MODEL_A, Plan, Run
from .report import Story, write_comparison_report
from .results import collect, save_results
from .run import CONFIG, State, TrainNet, arguments_of, claimed, execute, known_plan, save_plan, state_of

# Detectron2's timer leaves the first three out
TIMED = 8


def conduct(asked: Plan, output: Path, tool: Path, *, jobs: int, story: Story | None = None) -> dict[str, Any]:
    """Run what is left of a comparison, and write results.json, results.csv and report.html of all.

    The same call on several machines that share `output` does it together.

    Args:
        asked: what to run; added to the plan that `output` already has.
        output: the comparison's folder.
        tool: path of train_net.py.
        jobs: runs at a time, 1 or more.
        story: the words of the report; None for those of tools/compare.py.

    Returns:
        See `collect`; "failures" says which runs failed.

    Raises:
        UserError: `output` is another comparison's, or cannot be written.
        Stopped: by SIGINT or SIGTERM.
    """
    with claimed(output):
        plan = known_plan(output, asked)
        save_plan(output, plan)
    failures = execute(plan, output, tool, jobs=jobs)
    with claimed(output):
        # another call may have asked for more in the meantime
        results = collect(known_plan(output, asked), output, failures)
        save_results(results, output)
        write_comparison_report(results, output, story)
    return results


@dataclass(frozen=True)
class Cost:
    """Seconds that one iteration takes, and that every run takes besides: start, data set, evaluation."""

    iteration: float
    start: float


def measure(plan: Plan, tool: Path) -> Cost:
    """Time a short run of the first model A, outside of the comparison's folder.

    Raises:
        UserError: it fails; the sentence is its own.
    """
    first = plan.runs()[0]
    run = Run(first.seed, MODEL_A, TIMED, {**first.settings, "SOLVER.MAX_ITER": TIMED, "SOLVER.STEPS": []})
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        (output / CONFIG).write_text(plan.config, encoding="utf-8")
        return timed(tool, arguments_of(run, output), output / run.name)


def timed(tool: Path, arguments: list[str], folder: Path) -> Cost:
    """Run `tool`, whose arguments ask for TIMED iterations in `folder`.

    Raises:
        UserError: it fails; the sentence is its own.
    """
    began = time.monotonic()
    process = TrainNet(tool, arguments, folder, {}, ())
    try:
        code = process.wait()
    finally:
        process.stop()
    if code:
        raise UserError(f"The timed iterations failed: {process.complaint()}")
    whole = time.monotonic() - began
    times = [line["time"] for line in read_metrics(folder / "metrics.json") if "time" in line]
    iteration = times[-1] if times else whole / TIMED
    return Cost(iteration, max(0.0, whole - TIMED * iteration))


def describe(plan: Plan, output: Path, cost: Cost, jobs: int) -> str:
    """The plan as text: a line for each run, with what is left of it, and the time of all."""
    lines, left = [], {}
    for run in plan.runs():
        folder = output / run.name
        state = state_of(folder, run.iterations)
        to_do = run.iterations - min(iterations_done(folder), run.iterations)
        left[run.name] = 0.0 if state is State.FINISHED else cost.start + to_do * cost.iteration
        what = {State.FINISHED: "finished", State.EVALUATE: "evaluation left"}.get(state, f"{to_do} iterations left")
        lines.append(f"  {run.name:24} {run.iterations:>7} iterations  {what:24} {left[run.name]:>8.0f} s")
    total = _span(plan, left, jobs)
    a, b, held_out = plan.split.names
    return "\n".join(
        [
            f"A = {a} ({plan.split.used[0]} images), B = {b} ({plan.split.used[1]}), "
            f"evaluation on {held_out} ({plan.split.used[2]})",
            *lines,
            f"One iteration takes {cost.iteration:.2f} s, start and evaluation of a run {cost.start:.0f} s "
            "(measured without an adversary, which costs some more).",
            f"Estimated time of what is left: {_clock(total)} with --jobs {jobs}.",
            "Machines that share the folder do it together: start the same command on each (under Slurm: srun "
            "--nodes=N --ntasks-per-node=1 COMMAND).",
        ]
    )


def _span(plan: Plan, left: Mapping[str, float], jobs: int) -> float:
    """Seconds until all is done, if runs at a time do not slow each other: a free slot takes what can start first."""
    free = [0.0] * jobs
    ends: dict[str | None, float] = {None: 0.0}
    waiting = plan.runs()
    while waiting:
        slot = free.index(min(free))
        start, place = min(
            (max(free[slot], ends[run.parent]), i) for i, run in enumerate(waiting) if run.parent in ends
        )
        run = waiting.pop(place)
        ends[run.name] = start + left[run.name]
        if left[run.name]:
            free[slot] = ends[run.name]
    return max(ends.values())


def _clock(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes // 60} h {minutes % 60:02} min"
