"""One self-contained HTML file about a study, with the slides' numbers beside ours; and the best trial as files."""

import json
import shutil
from pathlib import Path
from typing import Any

from tabulate import tabulate

from gan_plugin.comparison.statistics import LEAST_SEEDS
from gan_plugin.engine.export import build_stock_model, read_named_generator, stock_config, write_weights
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.visualization.page import save_page, template

from ..data.parts import SEED002, SEED002_STATISTICS
from ..data.statistics import distance
from ..search.context import Context, environment
from ..search.phases import FULL, best_loss
from ..search.status import decisions, trial_table
from ..search.table import Row, Table
from ..training.outcome import weights_of
from . import seed_rows
from .figures import FIGURES, make_figures, save_figures
from .gather import PREDICTIONS, Gathered, outcome_scores

REPORT = "report.html"
STANDARD = (
    "segm/AP", "segm/AP50", "segm/AP75", "segm/APs", "segm/APm", "segm/APl", "cityscapes/AP", "cityscapes/AP50",
    "bbox/AP", "per_image/AP", "per_image/rAP",
)  # fmt: skip


def write_study_report(context: Context, table: Table) -> Path:
    """Write report.html and figures/ into the study's folder; returns the path of the report.

    Raises:
        UserError: they cannot be written.
    """
    study = Gathered(context, table)
    figures = make_figures(study)
    save_figures(figures, context.folder / FIGURES)
    page = template("study.html.j2", [Path(__file__).parent], digits=3).render(
        study=study,
        title=context.study.name,
        figures=figures,
        decisions=decisions(context, study.findings),
        environment=environment(),
        distances=_distances(study),
        least_seeds=LEAST_SEEDS,
        seed=seed_rows,
        printed_statistics=SEED002_STATISTICS,
        preset=_is_seed002(context),
        class_rows=_class_rows(study),
        threshold_rows=_threshold_rows(study),
        standard=_standard(study),
        best_loss=best_loss,
        short=_short,
        full=study.rows(FULL),
        spent=sum(row.attr("seconds", 0.0) for row in table.all_rows().values()),
    )
    return save_page(page, context.folder / REPORT)


def _short(value: Any) -> Any:
    return "n/a" if value is None else f"{value:.4g}" if isinstance(value, float) else value


def _is_seed002(context: Context) -> bool:
    return context.study.parts == SEED002


def _distances(study: Gathered) -> list[tuple[str, str, float]]:
    names = list(study.statistics)
    return [
        (a, b, distance(study.statistics[a], study.statistics[b])) for i, a in enumerate(names) for b in names[i + 1 :]
    ]


def _class_rows(study: Gathered) -> list[dict[str, Any]]:
    counts = study.statistics["test"].by_class
    return [
        {
            "name": name,
            "count": counts[name],
            "ours": {v: (r.class_ap[name], r.class_ap_counted[name]) for v, r in study.judged.items()},
            "slides": {variant: seed_rows.class_ap(variant, name) for variant in study.judged},
        }
        for name in study.context.classes
    ]


def _threshold_rows(study: Gathered) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": f"AP at IoU {threshold:g}",
            "ours": {variant: result.ap[place] for variant, result in study.judged.items()},
            "slides": {
                variant: seed_rows.AP[variant][place] if variant in seed_rows.AP else None for variant in study.judged
            },
        }
        for place, threshold in enumerate(seed_rows.THRESHOLDS)
    ]
    ours = {variant: result.rap for variant, result in study.judged.items()}
    rows.append(
        {"name": "rAP", "ours": ours, "slides": {variant: seed_rows.RAP.get(variant) for variant in study.judged}}
    )
    return rows


def _standard(study: Gathered) -> list[tuple[str, dict[str, float | None]]]:
    scores = {key: outcome_scores(row) for key, row in study.rows(FULL).items()}
    return [
        (metric, {key: of.get(metric) for key, of in scores.items()})
        for metric in STANDARD
        if any(metric in of for of in scores.values())
    ]


def best_trials(context: Context, table: Table, most: int) -> str:
    """The best trials of the search, and the variants, as a table."""
    study = Gathered(context, table)
    rows = [[row.name, f"{row.value:.4g}", "", ""] for row in study.ranking[:most]]
    for key, row in study.rows(FULL).items():
        judged = study.judged.get(key)
        scores = [f"{judged.ap[0]:.4f}", f"{judged.rap:.4f}"] if judged else ["", ""]
        rows.append([row.name, "" if row.value is None else f"{row.value:.4g}", *scores])
    headers = ["trial", context.study.objective.metric, "test AP at 0.5", "test rAP"]
    return tabulate(rows, headers=headers, disable_numparse=True)


def export_trial(context: Context, table: Table, out: Path, name: str = "") -> list[Path]:
    """Write config.yaml, model.pth, predictions.json, trials.json and report.html to `out`.

    The first two are a plain Mask R-CNN that stock Detectron2 loads without this project; the predictions are in
    COCO's result format, on the test part.

    Args:
        context, table: of the study.
        out: made if need be.
        name: "phase/key" of a trial; by default the variant with the best AP on the test part, else the best trial of
            the search.

    Returns:
        What was written.

    Raises:
        UserError: there is no such trial, it has no weights any more, or a file cannot be written.
    """
    study = Gathered(context, table)
    row = _chosen(study, name)
    folder = context.trial_folder(row.name)
    weights_file = weights_of(folder)
    if not weights_file.is_file():
        raise UserError(
            f"The trial {row.name} has no weights any more: of every phase only the best trial keeps them; export "
            "another, or train it again with its settings from config.yaml."
        )
    cfg = stock_config(folder / "config.yaml")
    weights, classes = read_named_generator(weights_file)
    # proves that the two belong together before anything is written
    build_stock_model(cfg, weights)
    out.mkdir(parents=True, exist_ok=True)
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "model.pth", "output"
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ()
    files = [out / "config.yaml", out / "model.pth", out / "trials.json"]
    write_whole(files[0], cfg.dump())
    write_weights(weights, files[1], classes)
    trials = json.dumps({"exported": row.name, "classes": context.classes, "trials": trial_table(table)}, indent=1)
    write_whole(files[2], trials)
    copies = {folder / PREDICTIONS: out / "predictions.json", write_study_report(context, table): out / REPORT}
    for source, target in copies.items():
        if source.is_file():
            shutil.copyfile(source, target)
            files.append(target)
    return files


def _chosen(study: Gathered, name: str) -> Row:
    rows = study.table.all_rows()
    if name:
        if name not in rows:
            raise UserError(f"There is no trial {name!r}; `study.py status` lists them.")
        return rows[name]
    best = study.best_variant
    if best is not None:
        return rows[f"{FULL}/{best}"]
    if study.findings.winner is None:
        raise UserError("No trial has come to its end yet; run the study first.")
    return study.findings.winner
