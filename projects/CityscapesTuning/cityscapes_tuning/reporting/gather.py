"""Everything that the report and its figures show, read once from the study's folder.

A variant's predictions are judged image by image, with intervals over images (slides, section 7).
"""

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.comparison.statistics import bootstrap_interval, spread, t_interval
from gan_plugin.evaluation.per_image_ap import (
    THRESHOLDS,
    ImagePairs,
    class_aps,
    image_ap,
    mean_of_defined,
    pairs_of,
)
from gan_plugin.visualization.panels import Instance, instances_of_record, read_predictions

from ..data.parts import PARTS
from ..data.register import read_part
from ..data.statistics import Ceiling, PartStatistics, ceilings, part_statistics
from ..search.advance import Findings, advance
from ..search.context import DATA, Context
from ..search.phases import CONFIRM, FULL, seed_scores
from ..search.table import Row, Table
from ..search.workspace import notes_of

PREDICTIONS = Path("inference") / "coco_instances_results.json"
_WORTH_DRAWING = 0.5


@dataclass(frozen=True)
class Box:
    """A predicted box (x0, y0, x1, y1) in pixels, its class and its score."""

    place: tuple[float, float, float, float]
    label: int
    score: float


@dataclass
class Judged:
    """A variant's predictions on the test part.

    Attributes:
        classes: their names.
        pairs: image id -> predictions and objects.
        predictions: image id -> predicted instances.
        boxes: image id -> what the box head says, surest first; a mask's own box may be another.
    """

    classes: tuple[str, ...]
    pairs: dict[Any, ImagePairs]
    predictions: dict[Any, list[Instance]]
    boxes: dict[Any, list[Box]]

    @cached_property
    def by_threshold(self) -> np.ndarray:
        """(images, 10) AP of each image at each IoU threshold, NaN for images without an object."""
        return np.array([[image_ap(pairs, t) for t in THRESHOLDS] for pairs in self.pairs.values()]).reshape(-1, 10)

    @cached_property
    def ap(self) -> list[float]:
        """AP at each threshold: the mean over images."""
        return [mean_of_defined(column) for column in self.by_threshold.T]

    @property
    def rap(self) -> float:
        """The mean of these ten."""
        return mean_of_defined(self.ap)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Bootstrap interval of AP at 0.5 over images."""
        return bootstrap_interval([value for value in self.by_threshold[:, 0] if not math.isnan(value)])

    def over(self, other: "Judged") -> list[float]:
        """AP at 0.5 minus that of another variant, for each image on which both have one."""
        mine, theirs = (dict(zip(each.pairs, each.by_threshold[:, 0], strict=True)) for each in (self, other))
        gaps = [float(ap - theirs[image]) for image, ap in mine.items() if image in theirs]
        return [gap for gap in gaps if not math.isnan(gap)]

    @cached_property
    def class_ap(self) -> dict[str, float]:
        """cAP: class -> mean AP at 0.5 over the images that hold the class; NaN where none does."""
        return self._class_ap(count_absent=False)

    @cached_property
    def class_ap_counted(self) -> dict[str, float]:
        """cAP over all images: where the class is absent 1 if it is not predicted either, else 0."""
        return self._class_ap(count_absent=True)

    def _class_ap(self, count_absent: bool) -> dict[str, float]:
        rows = [class_aps(pairs, len(self.classes), count_absent=count_absent) for pairs in self.pairs.values()]
        columns = np.reshape(rows, (-1, len(self.classes))).T
        return {name: mean_of_defined(column) for name, column in zip(self.classes, columns, strict=True)}

    @cached_property
    def doubles(self) -> tuple[int, int]:
        """How many found riders are also given as a person (IoU above 0.5), and how many riders are found."""
        if not {"rider", "person"} <= set(self.classes):
            return 0, 0
        rider, person = self.classes.index("rider"), self.classes.index("person")
        double = found = 0
        for pairs in self.pairs.values():
            good = (pairs.scores >= _WORTH_DRAWING)[:, None] & (pairs.iou > 0.5)
            for column in np.flatnonzero(pairs.truth_classes == rider):
                as_rider = (good[:, column] & (pairs.classes == rider)).any()
                found += bool(as_rider)
                double += bool(as_rider and (good[:, column] & (pairs.classes == person)).any())
        return double, found


def judge(folder: Path, content: Mapping[str, Any]) -> Judged | None:
    """Read what a trial has predicted.

    Args:
        folder: of the trial.
        content: of the part it was judged on, as `read_part` gives it.

    Returns:
        None if there are no predictions.
    """
    ids = content["metadata"].get("thing_dataset_id_to_contiguous_id", {})
    try:
        predictions, boxes = read_predictions(folder / PREDICTIONS, ids), _boxes(folder / PREDICTIONS, ids)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        return None
    classes = tuple(content["metadata"]["thing_classes"])
    pairs = {r["image_id"]: _pairs(r, predictions.get(r["image_id"], [])) for r in content["records"]}
    return Judged(classes, pairs, predictions, boxes)


def _boxes(path: Path, classes: Mapping[Any, int]) -> dict[Any, list[Box]]:
    labels = {str(identity): label for identity, label in classes.items()}
    found: dict[Any, list[Box]] = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        x, y, width, height = map(float, entry["bbox"])
        label = labels[str(entry["category_id"])] if labels else int(entry["category_id"])
        box = Box((x, y, x + width, y + height), label, float(entry["score"]))
        found.setdefault(entry["image_id"], []).append(box)
    return {image: sorted(boxes, key=lambda box: -box.score) for image, boxes in found.items()}


def _pairs(record: Mapping[str, Any], found: list[Instance]) -> ImagePairs:
    truth = instances_of_record(dict(record))
    crowds = [{**a, "iscrowd": 0} for a in record["annotations"] if a.get("iscrowd")]
    regions = instances_of_record({**record, "annotations": crowds})
    return pairs_of(
        np.array([instance.score for instance in found]),
        np.array([instance.label for instance in found], int),
        [instance.rle for instance in found],
        np.array([instance.label for instance in truth], int),
        [instance.rle for instance in truth],
        np.array([instance.label for instance in regions], int),
        [instance.rle for instance in regions],
    )


@dataclass
class Gathered:
    """A study with its trials.

    Attributes:
        context: of the study.
        table: of its trials.
    """

    context: Context
    table: Table

    @cached_property
    def findings(self) -> Findings:
        """What has been decided."""
        return advance(self.context, self.table, apply=False)

    @cached_property
    def phases(self) -> list[str]:
        """The Optuna studies that have a trial, in the order of the phases."""
        return [phase for phase in self.table.phases() if self.rows(phase)]

    def rows(self, phase: str) -> dict[str, Row]:
        """Key -> trial; {} for a phase that has not begun."""
        return self._rows.get(phase, {})

    @cached_property
    def _rows(self) -> dict[str, dict[str, Row]]:
        return {phase: self.table.rows(phase) for phase in self.table.phases()}

    @cached_property
    def contents(self) -> dict[str, dict[str, Any]]:
        """Part -> metadata and records."""
        return {part: read_part(self.context.folder / DATA / f"{part}.json") for part in PARTS}

    @cached_property
    def statistics(self) -> dict[str, PartStatistics]:
        """Part -> counts."""
        return {
            part: part_statistics(content["records"], content["metadata"]["thing_classes"])
            for part, content in self.contents.items()
        }

    @cached_property
    def ceilings(self) -> dict[str, Ceiling]:
        """What mini-masks allow on the test part."""
        return ceilings(self.contents["test"]["records"], self.context.classes)

    @cached_property
    def judged(self) -> dict[str, Judged]:
        """Variant -> its predictions on the test part."""
        results = {key: judge(self.folder(row), self.contents["test"]) for key, row in self.rows(FULL).items()}
        return {key: result for key, result in results.items() if result is not None}

    @property
    def notes(self) -> list[str]:
        """Sentences about the data."""
        return notes_of(self.context.folder)

    def folder(self, row: Row) -> Path:
        """Of a trial."""
        return self.context.trial_folder(row.name)

    @property
    def confirmed(self) -> list[dict[str, Any]]:
        """For each setting that was trained again: its scores by seed, their mean, deviation and interval."""
        entries = []
        for name, by_seed in seed_scores(self.rows(CONFIRM)).items():
            values = list(by_seed.values())
            entries.append({"name": name, "values": by_seed, "spread": spread(values), "interval": t_interval(values)})
        score = self.context.study.objective.score
        return sorted(entries, key=lambda e: score(statistics.fmean(e["values"].values()) if e["values"] else None))

    @property
    def confirmed_differences(self) -> list[dict[str, Any]]:
        """Of each setting after the first: its score minus the first's by the same seed, on average, with the interval
        over seeds."""
        if not self.confirmed:
            return []
        first, *others = self.confirmed
        found = []
        for entry in others:
            gaps = [value - first["values"][seed] for seed, value in entry["values"].items() if seed in first["values"]]
            if gaps:
                name = f"{entry['name']} minus {first['name']}"
                found.append({"name": name, "mean": spread(gaps).mean, "interval": t_interval(gaps)})
        return found

    @cached_property
    def ranking(self) -> list[Row]:
        """Complete trials of the fine search over all arms, the best first."""
        rows = [row for phase in self.phases if phase.startswith("fine-") for row in self.rows(phase).values()]
        score = self.context.study.objective.score
        complete = [row for row in rows if row.status == "complete" and row.value is not None]
        return sorted(complete, key=lambda row: (score(row.value), row.name))

    @property
    def variant_differences(self) -> list[dict[str, Any]]:
        """Of each variant after the first: its AP at IoU 0.5 minus the first's, image by image, on average, with the
        interval over images."""
        if not self.judged:
            return []
        first, *others = self.judged.items()
        found = [(name, result.over(first[1])) for name, result in others]
        return [
            {"name": f"{name} minus {first[0]}", "mean": spread(gaps).mean, "interval": bootstrap_interval(gaps)}
            for name, gaps in found
            if gaps
        ]

    @property
    def best_variant(self) -> str | None:
        """The variant with the best score on the test part: the objective where it is one, else AP at IoU 0.5."""
        metric, rows = self.context.study.objective.metric, self.rows(FULL)
        asked = {name: rows[name].attr("scores", {}).get(metric) for name in self.judged}
        if None not in asked.values():
            return max(self.judged, key=lambda name: asked[name], default=None)
        return max(self.judged, key=lambda name: self.judged[name].ap[0], default=None)


def outcome_scores(row: Row) -> Mapping[str, float]:
    """What Detectron2's and gan_plugin's evaluators gave at the end, flat and in percent."""
    return row.attr("scores", {})
