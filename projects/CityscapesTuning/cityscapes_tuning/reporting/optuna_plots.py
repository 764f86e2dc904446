"""Optuna's own plots of a search: importance, parallel coordinates, history, intermediate values, budget."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import optuna
from optuna.visualization import matplotlib as plots

from ..search.table import Table
from .picture import Picture, colour, new_axes, plot

_CAPTIONS = {
    "importance": "How much of the spread of the objective each hyper-parameter explains (fANOVA, complete trials).",
    "parallel": "Every trial is a line through its hyper-parameters, coloured by its objective: dark is better.",
    "history": "The objective of each trial in the order in which the trials were made, and the best so far.",
    "intermediate": "Validation loss of every trial over its iterations; pruned trials end early.",
}


def search_pictures(table: Table, phase: str) -> list[Picture]:
    """The plots of one Optuna study that its trials allow; those that need more trials are left out."""
    study = table.optuna_study(phase)
    draw: dict[str, Callable[[Any], Any]] = {
        "importance": plots.plot_param_importances,
        "parallel": plots.plot_parallel_coordinate,
        "history": plots.plot_optimization_history,
        "intermediate": plots.plot_intermediate_values,
    }
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    pictures = []
    for name, function in draw.items():
        if len(complete) < 2:
            break
        try:
            content = _draw(function, study)
        except (ValueError, RuntimeError):
            # too few trials, or all with the same score
            continue
        pictures.append(Picture(f"{phase}_{name}", f"{phase}: {_CAPTIONS[name]}", content))
    return pictures


def _draw(function: Callable[[Any], Any], study: optuna.Study) -> bytes:
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "gan_plugin"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyplot.switch_backend("Agg")
        try:
            axes = function(study)
            figure = axes.figure if hasattr(axes, "figure") else axes[0].figure
            figure.set_size_inches(7, 4)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        finally:
            pyplot.close("all")
    return buffer.getvalue()


def budget_bars(table: Table, phases: list[str]) -> Picture | None:
    """Iterations that each phase has computed, by how its trials ended."""
    spent = {
        phase: {
            status: sum(row.done for row in table.rows(phase).values() if row.status == status)
            for status in dict.fromkeys(row.status for row in table.rows(phase).values())
        }
        for phase in phases
    }
    if not any(spent.values()):
        return None
    figure, axes = new_axes()
    statuses = list(dict.fromkeys(status for of_phase in spent.values() for status in of_phase))
    below = dict.fromkeys(spent, 0.0)
    for number, status in enumerate(statuses):
        heights = [of_phase.get(status, 0) for of_phase in spent.values()]
        axes.bar(list(spent), heights, bottom=list(below.values()), color=colour(number), label=status)
        below = {phase: below[phase] + height for phase, height in zip(spent, heights, strict=True)}
    axes.set_ylabel("iterations")
    axes.tick_params(axis="x", rotation=15)
    return plot("budget", "Iterations that each phase has spent, by how its trials ended.", figure, legend=4)
