"""All figures of a study by name, each a file of its own and a part of the report."""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from optuna.visualization import matplotlib as optuna_plots

from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from ..search.context import Context
from ..search.fine import FINE
from ..search.phases import BABYSIT, COARSE, FULL, LR_CHECK, OVERFIT
from ..search.table import Row, Table
from . import plots
from .failures import failure_pictures
from .gather import Gathered
from .panels import data_pictures, result_pictures
from .picture import Picture, diagrams, fit_axis

Maker = Callable[[Gathered], list[Picture]]
FIGURES = "figures"
_LEGEND_ROWS = 22
_CAPTIONS = {
    "importance": "How much of the spread of the objective each hyper-parameter explains (fANOVA, complete trials).",
    "parallel": "Every trial is a line through its hyper-parameters, coloured by its objective: dark is better.",
    "history": "The objective of each trial in the order in which the trials were made, and the best so far.",
    "intermediate": "The objective of every trial over its iterations; pruned trials end early.",
}


def _babysit(study: Gathered) -> list[Picture]:
    rows = study.rows(BABYSIT)
    pictures: list[Picture | None] = []
    epoch = study.context.epoch("small_train")
    if OVERFIT in rows and rows[OVERFIT].attr("history"):
        caption = "Sanity check: the loss on the very images that are trained on, and the training loss."
        folder = study.folder(rows[OVERFIT])
        pictures.append(plots.loss_curves("babysit_loss", caption, [rows[OVERFIT]], epoch, folder))
        pictures.append(plots.gradient_norms(folder, epoch))
    if LR_CHECK in rows:
        pictures.append(plots.lr_range(study.folder(rows[LR_CHECK])))
    return [picture for picture in pictures if picture is not None]


def _coarse(study: Gathered) -> list[Picture]:
    rows = list(study.rows(COARSE).values())
    phase = study.context.study.phases.get(COARSE)
    if phase is None or not rows:
        return []
    pictures = []
    levels, metric = study.findings.choice.levels, study.context.study.objective.metric
    epoch = study.context.epoch("small_train")
    for factor in phase.factors:
        others = {name: level for name, level in levels.items() if name != factor}
        groups = {row.key: str(row.params[factor]) for row in rows if _fits(row, others)}
        own = [row for row in rows if row.key in groups]
        caption = f"Coarse search, {factor}: {metric} over the learning rate; crosses have failed."
        pictures.append(plots.lr_sweep(f"coarse_{factor}", caption, own, groups, metric))
        for level in dict.fromkeys(groups.values()):
            of_level = [row for row in own if groups[row.key] == level and row.attr("history")]
            if of_level:
                said = f"Coarse search: validation loss of {factor} {level}, one line a learning rate."
                pictures.append(plots.loss_curves(f"coarse_{factor}_{level}", said, of_level, epoch))
    return pictures


def _fits(row: Row, levels: dict[str, str]) -> bool:
    return all(row.params[name] == level for name, level in levels.items())


def _search(study: Gathered) -> list[Picture]:
    pictures = [p for phase in study.phases if phase.startswith(FINE) for p in search_pictures(study.table, phase)]
    bars = plots.budget_bars(study.table, study.phases)
    return pictures + ([bars] if bars else [])


def _full(study: Gathered) -> list[Picture]:
    pictures = []
    for row in study.rows(FULL).values():
        if row.attr("history"):
            best = min(row.attr("history"), key=lambda entry: entry["total"])
            epoch = study.context.epoch("train")
            kept = best["iteration"] / epoch
            caption = f"Full training, {row.key}: training and validation loss; the weights of epoch {kept:g} are kept."
            pictures.append(plots.loss_curves(f"full_{row.key}", caption, [row], epoch, study.folder(row)))
    return pictures


def _scores(study: Gathered) -> list[Picture]:
    return [plots.ap_bars(study.judged), plots.threshold_curves(study.judged)] if study.judged else []


def _data(study: Gathered) -> list[Picture]:
    return [plots.class_bars(study.statistics), *data_pictures(study.contents["test"])]


def _predictions(study: Gathered) -> list[Picture]:
    best = study.best_variant
    if best is None:
        return []
    folder = study.context.trial_folder(f"{FULL}/{best}")
    return result_pictures(study.judged, study.contents["test"], best, folder)


def _failures(study: Gathered) -> list[Picture]:
    best = study.best_variant
    return failure_pictures(study.judged[best], study.contents["test"]) if best else []


def _how_it_works(study: Gathered) -> list[Picture]:
    return diagrams()


# in the order of the report
MAKERS: dict[str, Maker] = {
    "data": _data,
    "babysit": _babysit,
    "coarse": _coarse,
    "search": _search,
    "full": _full,
    "scores": _scores,
    "predictions": _predictions,
    "failures": _failures,
    "how_it_works": _how_it_works,
}


def make_figures(study: Gathered, only: Sequence[str] = ()) -> dict[str, list[Picture]]:
    """Group -> figures; a study that has not come so far has fewer.

    Raises:
        UserError: a name of `only` is no group.
    """
    if unknown := sorted(set(only) - set(MAKERS)):
        raise UserError(f"There are no figures called {unknown[0]!r}; choose from {', '.join(MAKERS)}.")
    return {name: make(study) for name, make in MAKERS.items() if not only or name in only}


def write_figures(context: Context, table: Table, only: Sequence[str] = ()) -> list[Path]:
    """Write the figures to the study's folder; returns their paths."""
    return save_figures(make_figures(Gathered(context, table), only), context.folder / FIGURES)


def save_figures(groups: dict[str, list[Picture]], folder: Path) -> list[Path]:
    """Write every picture as a file named after it."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for picture in (picture for pictures in groups.values() for picture in pictures):
        file = folder / f"{picture.name}.{picture.suffix}"
        write_whole(file, picture.content)
        files.append(file)
    return files


def search_pictures(table: Table, phase: str) -> list[Picture]:
    """The plots of one Optuna study that its trials allow; those that need more trials are left out."""
    study = table.optuna_study(phase)
    draw: dict[str, Callable[[Any], Any]] = {
        "importance": optuna_plots.plot_param_importances,
        "parallel": optuna_plots.plot_parallel_coordinate,
        "history": optuna_plots.plot_optimization_history,
        "intermediate": optuna_plots.plot_intermediate_values,
    }
    complete = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    values = [value for t in complete for value in (t.value, *t.intermediate_values.values()) if value is not None]
    pictures = []
    for name, function in draw.items():
        if len(complete) < 2:
            break
        try:
            content = _draw(function, study, values if name in ("history", "intermediate") else [])
        except (ValueError, RuntimeError):
            # too few trials, or all with the same score
            continue
        pictures.append(Picture(f"{phase}_{name}", f"{phase}: {_CAPTIONS[name]}", content))
    return pictures


def _draw(function: Callable[[Any], Any], study: optuna.Study, values: Sequence[float]) -> bytes:
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "gan_plugin"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyplot.switch_backend("Agg")
        try:
            axes = function(study)
            figure = axes.figure if hasattr(axes, "figure") else axes[0].figure
            figure.set_size_inches(7, 4)
            fit_axis(figure.axes[0], values)
            if legend := figure.axes[0].get_legend():
                # beside the axes, where it hides no line and none of its texts is cut off
                rows = math.ceil(len(legend.get_texts()) / _LEGEND_ROWS)
                place = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0.0}
                figure.axes[0].legend(fontsize=7, ncols=max(1, rows), **place)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        finally:
            pyplot.close("all")
    return buffer.getvalue()
