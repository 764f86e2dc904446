"""The best trial as files for others: config and weights for stock Detectron2, predictions, table, report."""

import json
import shutil
from pathlib import Path

from gan_plugin.engine.export import build_stock_model, read_named_generator, stock_config, write_weights
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from ..search.context import Context
from ..search.events import weights_of
from ..search.full import FULL
from ..search.status import trial_table
from ..search.table import Row, Table
from .gather import Gathered
from .page import REPORT, write_study_report
from .scores import PREDICTIONS

_ADVICE = "Choose another --out, or free some disk space."


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
    write_whole(files[0], lambda file: file.write(cfg.dump().encode()), _ADVICE)
    write_weights(weights, files[1], classes)
    trials = json.dumps({"exported": row.name, "classes": context.classes, "trials": trial_table(table)}, indent=1)
    write_whole(files[2], lambda file: file.write(trials.encode()), _ADVICE)
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
