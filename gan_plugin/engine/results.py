"""Evaluation results: as a table, and as a line of metrics.json."""

import json
import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from detectron2.evaluation.testing import flatten_results_dict
from tabulate import tabulate


def finite_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Nested results as {"segm/AP": 31.2, ...} without what is not defined, such as the AP of an absent size."""
    flat = {name: float(value) for name, value in flatten_results_dict(results).items()}
    return {name: value for name, value in flat.items() if math.isfinite(value)}


def results_table(results: Mapping[str, Any]) -> str:
    """One row a metric in the results' order, "n/a" where it is not defined."""
    rows = [
        (name, f"{value:.2f}" if math.isfinite(value) else "n/a")
        for name, value in flatten_results_dict(results).items()
    ]
    return tabulate(
        rows, headers=["metric", "value"], tablefmt="github", disable_numparse=True, colalign=("left", "right")
    )


def log_results(results: Mapping[str, Any]) -> None:
    """Log the table."""
    logging.getLogger(__name__).info("Evaluation results:\n" + results_table(results))


def append_metrics(output_dir: str, results: Mapping[str, Any], iteration: int) -> None:
    """Add the defined metrics to OUTPUT_DIR/metrics.json, in the format of Detectron2's JSONWriter.

    Args:
        output_dir: an existing folder.
        results: nested results of an evaluation.
        iteration: of the weights that were evaluated.
    """
    line = json.dumps({**finite_metrics(results), "iteration": iteration}, sort_keys=True)
    with open(os.path.join(output_dir, "metrics.json"), "a", encoding="utf-8") as file:
        file.write(line + "\n")
