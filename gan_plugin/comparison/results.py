"""The numbers of a comparison: every metric of every arm and seed, and their statistics."""

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog

from gan_plugin.engine.provenance import versions
from gan_plugin.evaluation.fast_coco import AREAS, TASKS
from gan_plugin.metrics import final_scores

from .arms import BASELINE, controls_of
from .plan import MAIN, MODEL_A, Plan
from .resampling import Scores, hierarchical_interval, resampled_gaps, resampled_scores
from .run import State, state_of, write_if_new
from .statistics import Difference, Superiority, difference, judged, judged_above, spread, superiority

RESULTS, TABLE = "results.json", "results.csv"


def collect(plan: Plan, output: Path, failures: Mapping[str, str]) -> dict[str, Any]:
    """Everything that the runs of `plan` in `output` have left, as results.json holds it.

    Args:
        plan: of the comparison.
        output: its folder.
        failures: name of the run -> why it failed.

    Returns:
        "plan", "versions", "failures"; "runs": arm (model A is "a") -> seed -> {"folder", "status", "metrics"}, where
        a metric is None that is not defined: the AP of a size or a class that the held-out images do not show, or of a
        run that detected nothing. Means are over what is defined, never over zeros in its place;
        "statistics": metric -> arm -> {"values": seed -> value, "n", "mean", "std", "difference"}, the last as
        `Difference` has it; "controls": main metric -> adversary -> {"to": control -> difference, and its
        `Superiority`}, of adversaries with a control besides the baseline. Scores are those of metrics.json, in its
        units.
    """
    runs: dict[str, dict[str, Any]] = {}
    for run in plan.runs():
        folder = output / run.name
        finished = state_of(folder, run.iterations) is State.FINISHED
        status = "finished" if finished else "failed" if run.name in failures else "not finished"
        scores = final_scores(folder, run.iterations) if finished else {}
        metrics = {name: score for name, score in scores.items() if math.isfinite(score)}
        runs.setdefault(run.arm, {})[str(run.seed)] = {"folder": run.name, "status": status, "metrics": metrics}
    classes = MetadataCatalog.get(plan.split.names[2]).get("thing_classes", [])
    _fill_gaps(runs, classes)
    pairs = _Pairs(runs, resampled_scores(plan, output, runs), plan.split.used[2])
    return {
        "plan": plan.to_dict(),
        "versions": versions(),
        "failures": dict(failures),
        "runs": runs,
        "statistics": _statistics(pairs, plan.main),
        "controls": _controls(pairs, plan.main),
    }


def up_to_date(results: dict[str, Any]) -> dict[str, Any]:
    """Results as a file holds them, with the statistics of this version if an earlier one has written them.

    Intervals over images, which need the runs, are then missing.
    """
    if "main" in results["plan"] and "controls" in results:
        return results
    main = list(MAIN) if any(name in results["statistics"] for name in MAIN) else ["bbox/AP"]
    main = results["plan"].get("main", main)
    pairs = _Pairs(results["runs"], {}, 0)
    now = results if "main" in results["plan"] else {**results, "statistics": _statistics(pairs, main)}
    return {**now, "plan": {**results["plan"], "main": main}, "controls": _controls(pairs, main)}


def _fill_gaps(runs: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> None:
    finished = [run for seeds in runs.values() for run in seeds.values() if run["status"] == "finished"]
    defined = {metric for run in finished for metric in run["metrics"]}
    for run in finished:
        run["metrics"] = {name: run["metrics"].get(name) for name in sorted(defined | _siblings(defined, classes))}


def _siblings(defined: Collection[str], classes: Sequence[str]) -> set[str]:
    """What an evaluator measures along with the `defined` metrics, whether or not the images define it."""
    tasks = {name.rpartition("/")[0] for name in defined if name.endswith("/AP")}
    sized = {f"{task}/AP{size}" for task in tasks if task.rpartition("/")[2] in TASKS for size in AREAS}
    of_class = {name.rpartition("-")[0] for name in defined if name.endswith(tuple(f"-{c}" for c in classes))}
    return sized | {f"{stem}-{c}" for stem in of_class for c in classes}


class _Pairs:
    """The values of all runs, and the differences between any two arms."""

    def __init__(self, runs: Mapping[str, Mapping[str, Any]], scores: Scores, images: int) -> None:
        metrics = dict.fromkeys(
            metric for seeds in runs.values() for run in seeds.values() for metric in run["metrics"]
        )
        self.values = {metric: _values(metric, runs) for metric in metrics}
        self.arms = [arm for arm in runs if arm != MODEL_A]
        self._scores, self._images = scores, images

    def difference(self, metric: str, arm: str, reference: str = BASELINE) -> Difference:
        """`arm` minus `reference`, with its interval over images where the runs have left what it takes."""
        found = difference(self.values[metric][arm], self.values[metric][reference])
        gaps = resampled_gaps(self._scores, metric, arm, reference)
        return replace(found, images=None if gaps is None else hierarchical_interval(gaps, self._images))


def _statistics(pairs: _Pairs, main: Sequence[str]) -> dict[str, dict[str, Any]]:
    found = {
        (metric, arm): pairs.difference(metric, arm) for metric in pairs.values for arm in pairs.arms if arm != BASELINE
    }
    family = [key for key in found if key[0] in main]
    found |= dict(zip(family, judged([found[key] for key in family]), strict=True))
    return {
        metric: {
            arm: {
                "values": _with_text_keys(of_seed),
                **asdict(spread(list(of_seed.values()))),
                "difference": _as_json(found.get((metric, arm))),
            }
            for arm, of_seed in of_arms.items()
        }
        for metric, of_arms in pairs.values.items()
    }


def _controls(pairs: _Pairs, main: Sequence[str]) -> dict[str, dict[str, Any]]:
    to = {
        (metric, arm): {name: pairs.difference(metric, arm, name) for name in controls}
        for metric in main
        if metric in pairs.values
        for arm in pairs.arms
        if len(controls := controls_of(arm, pairs.arms)) > 1
    }
    judgements = dict(zip(to, judged_above([superiority(each) for each in to.values()]), strict=True))
    found: dict[str, dict[str, Any]] = {}
    for (metric, arm), each in judgements.items():
        differences = {name: _as_json(one) for name, one in to[metric, arm].items()}
        found.setdefault(metric, {})[arm] = {"to": differences, **_of_superiority(each)}
    return found


def _of_superiority(found: Superiority) -> dict[str, Any]:
    return {key: getattr(found, key) for key in ("closest", "p", "adjusted", "verdict")}


def _values(metric: str, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    return {
        arm: {int(seed): value for seed, run in seeds.items() if (value := run["metrics"].get(metric)) is not None}
        for arm, seeds in runs.items()
    }


def _as_json(found: Difference | None) -> dict[str, Any] | None:
    return None if found is None else {**asdict(found), "by_seed": _with_text_keys(found.by_seed)}


def _with_text_keys(values: Mapping[int, float]) -> dict[str, float]:
    return {str(seed): value for seed, value in values.items()}


def save_results(results: Mapping[str, Any], output: Path) -> None:
    """Write results.json, and results.csv with a line for each arm, seed and metric.

    Raises:
        UserError: they cannot be written.
    """
    write_if_new(output / RESULTS, json.dumps(results, indent=1))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", "metric", "value"])
    writer.writerows(_rows(results["runs"]))
    write_if_new(output / TABLE, text.getvalue())


def _rows(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str, float | None]]:
    for arm, seeds in runs.items():
        for seed, run in seeds.items():
            for metric, value in run["metrics"].items():
                yield arm, seed, metric, value
