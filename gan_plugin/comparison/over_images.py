"""Intervals of a comparison's differences that know of other test images, not only of other seeds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog

from gan_plugin.visualization.run_files import stored_predictions

from .arms import BASELINE
from .plan import MODEL_A, Plan
from .resampling import hierarchical_interval, image_weights, match_images, resampled_ap
from .statistics import t_quantile

# metric -> whether it is by outlines
_RESAMPLED = {"segm/AP": False, "boundary/AP": True}


def over_images(
    plan: Plan, output: Path, runs: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], tuple[float, float]]:
    """The interval over seeds and images of each arm's difference in the main metrics that are APs of masks.

    Args:
        plan: of the comparison.
        output: its folder.
        runs: arm -> seed -> {"folder", "metrics"}, as in results.json.

    Returns:
        (metric, arm) -> interval, in percent points; without those whose runs have left no predictions.
    """
    name = plan.split.names[2]
    metrics = [metric for metric in plan.main if metric in _RESAMPLED]
    several = [(arm, seed) for arm, seeds in runs.items() if arm != MODEL_A for seed in seeds if seeds[seed]["metrics"]]
    if not metrics or not several or name not in DatasetCatalog:
        return {}
    records = DatasetCatalog.get(name)
    weights = np.vstack([np.ones((1, len(records)), int), image_weights(len(records))])
    scores: dict[tuple[str, str, str], np.ndarray] = {}
    for arm, seed in several:
        try:
            found = stored_predictions(output / runs[arm][seed]["folder"], name, records)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for metric in metrics:
            matches = match_images(records, found, boundary=_RESAMPLED[metric])
            scores[metric, arm, seed] = resampled_ap(matches, weights)
    intervals = {}
    for metric in metrics:
        for arm in runs:
            seeds = [s for s in runs[arm] if (metric, arm, s) in scores and (metric, BASELINE, s) in scores]
            if arm in (BASELINE, MODEL_A) or len(seeds) < 2:
                continue
            gaps = np.stack([scores[metric, arm, s] - scores[metric, BASELINE, s] for s in seeds])
            interval = hierarchical_interval(gaps[:, 1:], float(gaps[:, 0].mean()), t_quantile(len(seeds)))
            if interval is not None:
                intervals[metric, arm] = interval
    return intervals
