"""metrics.json, where a run keeps its scalars: the one reader of it, and what is found in it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "metrics.json"
# enough for the last few lines, where someone asks for them often
_TAIL = 1 << 16


def metric_lines(path: str | Path, *, tail: bool = False) -> Iterator[dict[str, float]]:
    """The lines of a metrics.json as they were written, each with its whole number "iteration"; none without the file.

    A line that is cut off, as by a kill, or is no JSON object is skipped, but not the one that a resumed run has
    appended to it. Values that are no number are left out; NaN stays.

    Args:
        path: of the file.
        tail: whether its last lines are enough.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return
    for text in content[-_TAIL if tail else 0 :].decode(errors="replace").splitlines():
        for line in _objects(text):
            if isinstance(line.get("iteration"), int):
                yield {key: value for key, value in line.items() if isinstance(value, int | float)}


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON object that a line is, or those that are whole in a line that was cut off and written on."""
    for part in (text, *re.split(r"(?=\{)", text)):
        try:
            line = json.loads(part)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            yield line
        if part is text:
            return


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The lines of a metrics.json in the order of their iterations.

    Where an iteration occurs again, as after a resume, the later line adds to the earlier one and overrides it.
    """
    lines: dict[float, dict[str, float]] = {}
    for line in metric_lines(path):
        lines.setdefault(line["iteration"], {}).update(line)
    return [lines[iteration] for iteration in sorted(lines)]


def iterations_done(folder: str | Path) -> int:
    """Iterations that the end of `folder`/metrics.json knows of."""
    lines = metric_lines(Path(folder) / FILE, tail=True)
    return max((int(line["iteration"]) + 1 for line in lines if "total_loss" in line), default=0)


def final_scores(folder: str | Path, iterations: int) -> dict[str, float]:
    """All metrics of the evaluation after the last of `iterations`, as in `folder`/metrics.json; {} if there is none.

    An evaluation has a line of its own, without a loss: at iteration `iterations` when training has ended with it, and
    at the one of the weights, `iterations` - 1, if it was made up for later.
    """
    scores: dict[str, float] = {}
    for line in metric_lines(Path(folder) / FILE):
        found = {key: value for key, value in line.items() if "/" in key}
        if line["iteration"] >= iterations - 1 and "total_loss" not in line and found:
            scores = found
    return scores


def final_evaluation(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The last of the lines (see `read_metrics`) that holds an AP; {} if there is none."""
    return next((dict(line) for line in reversed(metrics) if any(re.search(r"/AP\d*$", key) for key in line)), {})


def scores_by_task(evaluation: Mapping[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """{"": {"segm": {"AP": ...}}, "ema": {...}}: scores by what precedes the task's name, by task, by metric."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for key, value in evaluation.items():
        prefix, _, metric = key.rpartition("/")
        prefix, _, task = prefix.rpartition("/")
        if task and metric.startswith("AP"):
            groups.setdefault(prefix, {}).setdefault(task, {})[metric] = value
    return groups
