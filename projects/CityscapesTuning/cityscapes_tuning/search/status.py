"""The table of trials as text and as plain values."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from .advance import Findings, advance
from .context import Context
from .table import Row, Table

_SHORT = 60


def trial_table(table: Table) -> list[dict[str, Any]]:
    """Everything about the trials that does not depend on who ran them, when, and how often they were interrupted."""
    return [
        {
            "trial": row.name,
            "status": row.status,
            "params": row.trial.params,
            "iterations": row.done,
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
    for factor, outcome in findings.choice.steps.items():
        scores = ", ".join(
            f"{level} {score:.4g} (lr {lr:g})" if lr is not None else f"{level} failed"
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
        point = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in _params(findings.winner))
        said.append(f"Best setting: {findings.winner.name} ({point}).")
    return said


def _params(row: Row) -> list[tuple[str, Any]]:
    return list(row.trial.params.items())


def _cells(row: Row) -> list[str]:
    value = "" if row.value is None else f"{row.value:.4f}"
    params = ", ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in _params(row))
    note = row.attr("reason", "") or "; ".join(row.attr("events", []))
    text = f"{params}  {note}".strip()
    done = f"{row.done}/{row.iterations}"
    return [row.name, row.status, done, value, f"{row.attr('seconds', 0):.0f}", text[:_SHORT]]


def _progress(rows: Mapping[str, Row], findings: Findings) -> str:
    if findings.finished:
        return "All phases are finished."
    over = sum(not row.is_open for row in rows.values())
    trained = sum(row.done for row in rows.values())
    seconds = sum(row.attr("seconds", 0.0) for row in rows.values() if row.done)
    left = sum(row.iterations - row.done for row in rows.values() if row.is_open)
    said = f"Phase {findings.phase}: {over} of {len(rows)} trials so far are over"
    if trained and left:
        said += f"; what is planned now takes about {seconds / trained * left / 60:.1f} minutes of one worker"
    return said + "."
