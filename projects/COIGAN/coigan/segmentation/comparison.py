"""With and without synthetic defects: arms, seeds, and what their differences allow to say."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from coigan.segmentation.training import SegmentOptions, train_segmenter, write_segmenter
from gan_plugin.comparison.statistics import difference, judged, spread
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import write_whole

_logger = logging.getLogger(__name__)
BASELINE = "real"
# the first is the main one: verdicts are given on it alone
METRICS = ("IoU", "F1", "precision", "recall", "accuracy")
_ADVICE = "Free some disk space and run the same command again; finished trainings are kept."


def compare(
    real: Dataset,
    val: Dataset,
    test: Dataset,
    extras: Mapping[str, Dataset],
    seeds: Sequence[int],
    options: SegmentOptions,
    out: Path,
    sources: Mapping[str, str],
) -> dict[str, Any]:
    """Train a segmenter on `real` alone and with each of `extras`, for every seed; all arms take as many steps.

    Finished trainings are kept in `out`/results.json; running again continues where a run has ended. Each segmenter
    of `real` alone is kept as well, as segmenter_seed<S>.pth.

    Args:
        real: the training set of all arms.
        val: real images that no arm is trained on, by which each training chooses its rate and its weights.
        test: what all are scored on.
        extras: name of an arm -> synthetic images that it gets besides.
        seeds: at least five, or no verdict is given.
        options: of each training.
        out: folder for results.json.
        sources: what `real`, `test` and each arm were read from; results of others are not mixed in.

    Returns:
        What results.json holds: `runs`, `summary`, `classes` (mean scores of each class by arm), `collapsed` (of each
        arm the seeds whose segmenter says the same of every pixel, with what), `options`, `sources`.

    Raises:
        UserError: `out` holds another comparison.
    """
    identity = {"options": options.describe(), "sources": dict(sources)}
    runs = _former_runs(out / "results.json", identity)
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for arm in (BASELINE, *extras):
            if any(run["arm"] == arm and run["seed"] == seed for run in runs):
                continue
            start = time.monotonic()
            sets = [real] if arm == BASELINE else [real, extras[arm]]
            # of real images alone, so it may judge synthetic ones (inpaint.py segment --audit)
            file = out / f"segmenter_seed{seed}.pth"
            keep = partial(write_segmenter, file, options=options) if arm == BASELINE else None
            scores = train_segmenter(sets, val, test, options, seed, keep)
            runs.append({"arm": arm, "seed": seed, "scores": scores, "seconds": time.monotonic() - start})
            said = f"; collapsed: it {scores['collapsed']}" if scores["collapsed"] else ""
            _logger.info(f"{arm}, seed {seed}: IoU {scores['IoU']:.4f}{said}")
            _write(out / "results.json", {**identity, "runs": runs})
    wanted = [run for run in runs if run["seed"] in seeds and run["arm"] in (BASELINE, *extras)]
    arms = [BASELINE, *extras]
    collapsed = {arm: {run["seed"]: run["scores"]["collapsed"] for run in wanted if run["arm"] == arm} for arm in arms}
    report = {
        **identity,
        "runs": runs,
        "summary": summarise(wanted, arms),
        "classes": {arm: _by_class([run["scores"] for run in wanted if run["arm"] == arm]) for arm in arms},
        "collapsed": {arm: {seed: how for seed, how in found.items() if how} for arm, found in collapsed.items()},
    }
    _write(out / "results.json", report)
    return report


def summarise(runs: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> dict[str, Any]:
    """For every metric and arm the mean over seeds, and the paired difference to the baseline; see `Difference`."""
    summary: dict[str, Any] = {}
    for metric in METRICS:
        values = {arm: {run["seed"]: run["scores"][metric] for run in runs if run["arm"] == arm} for arm in arms}
        gaps = [difference(values[arm], values[BASELINE]) for arm in arms if arm != BASELINE]
        found = dict(zip(arms, [None, *(judged(gaps) if metric == METRICS[0] else gaps)], strict=True))
        summary[metric] = {
            arm: {**asdict(spread(list(values[arm].values()))), "difference": (gap := found[arm]) and asdict(gap)}
            for arm in arms
        }
    return summary


def _by_class(scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The mean of each class's scores over seeds; None where no test image holds the class."""
    classes = scores[0].get("classes", {}) if scores else {}
    means: dict[str, dict[str, float | None]] = {}
    for name, first in classes.items():
        values = {key: [one["classes"][name][key] for one in scores] for key in first}
        means[name] = {key: None if None in found else sum(found) / len(found) for key, found in values.items()}
    return means


def _former_runs(path: Path, identity: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with as_user_error(f"{path} is no result of a comparison", "move it away or choose another --output"):
        former = json.loads(path.read_text(encoding="utf-8"))
        same = {key: former[key] for key in identity} == json.loads(json.dumps(identity))
        runs = former["runs"]
    if not same:
        raise UserError(f"{path} is of other data or options; choose another --output.")
    return runs


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1)
    write_whole(path, text, _ADVICE)
