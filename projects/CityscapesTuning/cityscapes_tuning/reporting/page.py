"""One self-contained HTML file about a study, with the slides' numbers beside ours."""

from pathlib import Path
from typing import Any

from gan_plugin.visualization.page import save_page, template

from ..data.parts import SEED002, SEED002_STATISTICS
from ..data.statistics import distance
from ..search.context import Context
from ..search.environment import environment
from ..search.full import FULL, best_loss
from ..search.status import decisions
from ..search.table import Table
from . import seed_rows
from .figures import FIGURES, make_figures, save_figures
from .gather import Gathered, outcome_scores

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
    return f"{value:.3g}" if isinstance(value, float) else value


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
