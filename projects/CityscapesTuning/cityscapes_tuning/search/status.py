"""The table of trials as text and as plain values, and the lines that tell of its trials as they end."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

from .advance import Findings, advance
from .context import Context
from .fine import FINE
from .table import Row, Table

_SHORT = 60


def trial_table(table: Table) -> list[dict[str, Any]]:
    """Everything about the trials that does not depend on who ran them, when, and how often they were interrupted."""
    return [
        {
            "trial": row.name,
            "status": row.status,
            "params": row.params,
            "iterations": row.trained,
            "value": row.value,
            "history": row.attr("history", []),
            "scores": row.attr("scores", {}),
            "events": row.attr("events", []),
            "reason": row.attr("reason", ""),
        }
        for row in table.all_rows().values()
    ]


def describe(context: Context, table: Table) -> str:
    """The table, what has been decided so far, what is left, and an estimate of its time."""
    rows = table.all_rows()
    lines = [
        tabulate(
            [_cells(row) for row in rows.values()],
            headers=["trial", "status", "iterations", context.study.objective.metric, "seconds", "params"],
            disable_numparse=True,
            colalign=("left", "left", "right", "right", "right", "left"),
        )
        if rows
        else "No trial yet."
    ]
    findings = advance(context, table, apply=False)
    lines += ["", *decisions(context, findings)]
    lines.append(_progress(rows, findings))
    return "\n".join(lines)


def decisions(context: Context, findings: Findings) -> list[str]:
    """A sentence for everything that the study has decided."""
    said = []
    if findings.can_be_trained is not None:
        said.append(findings.can_be_trained[1])
    better = 1 if context.study.objective.is_loss else -1
    for factor, outcome in findings.choice.steps.items():
        scores = ", ".join(
            f"{level} {better * score:.4g} (lr {lr:g})" if lr is not None else f"{level} failed"
            for level, (score, lr) in outcome.items()
        )
        said.append(f"Coarse search, {factor}: {findings.choice.levels[factor]} wins ({scores}).")
    coarse = context.study.phases.get("coarse")
    if coarse is not None and coarse.procedure == "coordinate" and len(findings.choice.steps) > 1:
        said.append(
            f"The factors {', '.join(findings.choice.steps)} were decided one after the other: whether they interact "
            "was not tested (procedure: factorial would)."
        )
    if findings.winner is not None:
        point = ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in findings.winner.params.items()
        )
        said.append(f"Best setting: {findings.winner.name} ({point}).")
    return said


def _cells(row: Row) -> list[str]:
    value = "" if row.value is None else f"{row.value:.4g}"
    params = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.params.items())
    note = row.attr("reason", "") or "; ".join(row.attr("events", []))
    text = f"{params}  {note}".strip()
    done = f"{row.trained}/{row.iterations}"
    return [row.name, row.status, done, value, f"{row.attr('seconds', 0):.0f}", text[:_SHORT]]


def _progress(rows: Mapping[str, Row], findings: Findings) -> str:
    if findings.finished:
        return "All phases are finished."
    over = sum(not row.is_open for row in rows.values())
    trained = sum(row.trained for row in rows.values())
    seconds = sum(row.attr("seconds", 0.0) for row in rows.values() if row.trained)
    left = sum(row.iterations - row.done for row in rows.values() if row.is_open)
    said = f"Phase {findings.phase}: {over} of {len(rows)} trials so far are over"
    if trained and left:
        said += f"; what is planned now takes about {seconds / trained * left / 60:.1f} minutes of one worker"
    return said + "."


class News:
    """Says a line for every trial that ends, pauses or is changed, whichever worker has it, and shows the progress.

    On a terminal all workers share one line of progress below.
    """

    def __init__(self, context: Context, table: Table, say: Callable[[str], None]) -> None:
        self._context, self._table, self._say = context, table, say
        self._known = {name: _state(row) for name, row in table.all_rows().items()}
        self._bar = tqdm(unit=" trials", disable=None, leave=False) if say is print_line else None

    def tell(self) -> None:
        """Say what is new since the last call."""
        rows = self._table.all_rows()
        over = sum(not row.is_open for row in rows.values())
        for row in rows.values():
            events, before = row.attr("events", []), self._known.get(row.name)
            seen = before[2] if before and before[2] <= len(events) else 0
            for event in events[seen:]:
                self._say(f"{row.name}: {event}")
            told = not row.is_open or (row.phase.startswith(FINE) and row.is_ready and row.is_begun)
            if _state(row) != before and told:
                self._say(f"[{over}/{len(rows)}] {self._line(row)}")
            self._known[row.name] = _state(row)
        if self._bar is not None:
            running = sum(row.trial.state.name == "RUNNING" for row in rows.values())
            self._bar.total, self._bar.n = len(rows), over
            self._bar.set_postfix_str(f"{running} running")

    def close(self) -> None:
        """Take the line of progress away."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, row: Row) -> str:
        said = f"{row.name}: {row.status} after {row.trained} iterations"
        if row.is_failed:
            return f"{said}. {row.attr('reason', '')}"
        return said if row.value is None else f"{said}, {self._context.study.objective.metric} {row.value:.4g}"


def _state(row: Row) -> tuple[str, int, int]:
    return row.status, row.trained, len(row.attr("events", []))


def print_line(text: str) -> None:
    """A line with the time of day, at once, above the line of progress."""
    tqdm.write(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)
    sys.stderr.flush()
