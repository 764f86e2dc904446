"""All phases in miniature on a toy Cityscapes, from nothing, on a CPU."""

import os
import time
from pathlib import Path

from tabulate import tabulate

from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.demos import shown_path
from gan_plugin.errors import UserError

from .reporting.gather import Gathered
from .reporting.page import write_study_report
from .search.together import work_together
from .search.workspace import set_up

_STUDY = Path(__file__).resolve().parents[1] / "configs/toy_study.yaml"
_PICTURES = {"train": 48, "val": 12}
_SIZE = (256, 128)
_SHOWN = 5


def run_demo(out: Path, workers: int = 2) -> int:
    """Write the toy data, run the whole study with so many workers, print the best trials and the report's path.

    The same call again continues a demo that was stopped.

    Raises:
        UserError: `out` cannot be written or holds something else, or a trial fails.
    """
    started = time.monotonic()
    datasets = out / "datasets"
    write_toy_cityscapes(datasets, **_PICTURES, size=_SIZE)
    os.environ["DETECTRON2_DATASETS"] = str(datasets.resolve())
    context, table = set_up(_STUDY, out / "study")
    work_together(context, table, workers)
    study = Gathered(context, table)
    failed = [row for row in table.all_rows().values() if row.status == "failed"]
    if failed:
        raise UserError(f"{len(failed)} trials of the demo failed; the first: {failed[0].attr('reason')}")
    report = write_study_report(context, table)
    print(best_trials(study))
    seconds = time.monotonic() - started
    print(f"demo-tuning: {len(table.all_rows())} trials in {seconds:.0f} s, report {shown_path(report)}")
    return 0


def best_trials(study: Gathered) -> str:
    """The best trials of the search, and the variants, as a table."""
    metric = study.context.study.objective.metric
    rows = [[row.name, f"{row.value:.4f}", "", ""] for row in study.ranking[:_SHOWN]]
    for key, row in study.rows("full").items():
        judged = study.judged.get(key)
        scores = [f"{judged.ap[0]:.4f}", f"{judged.rap:.4f}"] if judged else ["", ""]
        rows.append([row.name, "" if row.value is None else f"{row.value:.4f}", *scores])
    return tabulate(rows, headers=["trial", metric, "test AP at 0.5", "test rAP"], disable_numparse=True)
