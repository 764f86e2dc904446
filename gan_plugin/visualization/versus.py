"""Where a GAN gains on its baseline and where it loses, object by object: part of a report, or a page of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from gan_plugin.data.pictures import image_problem
from gan_plugin.errors import UserError
from gan_plugin.metrics import FILE, read_metrics

from . import panels
from .curves import draw_curves
from .page import drawing, save_page, signed, template
from .paired import (
    LEAST_IOU,
    MEASURES,
    PairedObject,
    RunOnImages,
    draw_pairs,
    greatest,
    judge_run,
    pair_objects,
    telling,
)
from .run_files import predictions_of, read_config
from .scenes import Scene, close_up
from .verdicts import verdict_picture

_BASELINE = "baseline"
# objects by each measure and in each direction; one that is among the first by both has one row
_ROWS = 3
_SCENE_SIDE = 448


@dataclass
class TestSet:
    """One test set and the runs on it that have been looked at."""

    name: str
    threshold: float
    records: list[dict[str, Any]] = field(init=False)
    _runs: dict[Path, RunOnImages] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = DatasetCatalog.get(self.name)

    def run(self, folder: Path) -> RunOnImages:
        """What the run in `folder` predicted; a UserError if it left nothing to tell that from."""
        if folder not in self._runs:
            self._runs[folder] = judge_run(
                self.records, predictions_of(folder, self.name, self.records), self.threshold
            )
        return self._runs[folder]


def versus(
    test_set: TestSet, baselines: Sequence[Path], gans: Sequence[Path], who: str, seeds: Sequence[str]
) -> dict[str, Any]:
    """A section as the template "versus.j2" shows it: "who", "summary", "plots", "groups" of rows, "scenes", "verdict".

    Args:
        test_set: whose images both sides have predicted.
        baselines, gans: OUTPUT_DIRs, the same seeds in the same order.
        who: the GAN's name.
        seeds: names of the seeds.

    Raises:
        UserError: a run has neither predictions nor a model to make them, or there is nothing to find.
    """
    sides = [[test_set.run(folder) for folder in folders] for folders in (baselines, gans)]
    objects = pair_objects(test_set.records, *sides)
    if not objects:
        raise UserError(f"The images of {test_set.name} hold no annotated object.")
    album = _Album(test_set, who, list(seeds))
    groups = [
        {"title": f"Where {who} {'loses' if losses else 'gains'} most", "rows": rows}
        for losses in (False, True)
        if (rows := album.rows({key: greatest(objects, key, _ROWS, losses=losses) for key in MEASURES}))
    ]
    return {
        "who": who,
        "summary": _summary(objects, who, len(seeds)),
        "plots": [drawing(draw_pairs(objects, measure, who)) for measure in MEASURES],
        "groups": groups,
        "scenes": album.scenes(*sides),
        **_verdict(gans[0], test_set.name, seeds[0] if len(seeds) > 1 else ""),
    }


def _verdict(folder: Path, name: str, seed: str) -> dict[str, Any]:
    """ "verdict", a picture or None, and "verdict_note", why there is none."""
    try:
        picture = verdict_picture(folder, name)
    except UserError as error:
        return {"verdict": None, "verdict_note": str(error)}
    caption = picture["caption"] + (f" The run is that of seed {seed}." if seed else "")
    return {"verdict": {**picture, "caption": caption}, "verdict_note": ""}


def _summary(objects: Sequence[PairedObject], who: str, seeds: int) -> str:
    sentences = [
        f"{len(objects)} annotated objects" + (f", their values averaged over {seeds} seeds." if seeds > 1 else ".")
    ]
    for measure, name in MEASURES.items():
        gains = np.array([found.gain(measure) for found in objects])
        base = np.mean([fate[measure] for found in objects for fate in found.baseline])
        sentences.append(
            f"Mean {name}: {base:.3f} (baseline), {base + gains.mean():.3f} ({who}); objects that gain: "
            f"{(gains > 0).sum()}, that lose: {(gains < 0).sum()}."
        )
    missed = [
        sum(fate.prediction is None for found in objects for fate in (found.baseline, found.gan)[side])
        for side in (0, 1)
    ]
    sentences.append(f"Missed: {missed[0]} (baseline) and {missed[1]} ({who}) of {len(objects) * seeds}.")
    return " ".join(sentences)


class _Album:
    """Rows of pictures about one GAN and the baseline."""

    def __init__(self, test_set: TestSet, who: str, seeds: list[str]) -> None:
        self._set, self._who, self._seeds = test_set, who, seeds
        self._classes: Sequence[str] = MetadataCatalog.get(test_set.name).get("thing_classes", [])

    def rows(self, chosen: Mapping[str, Sequence[PairedObject]]) -> list[dict[str, Any]]:
        """One for each object whose image can be read.

        Args:
            chosen: measure -> objects by rank.
        """
        ranks: dict[tuple[int, int], dict[str, int]] = {}
        for measure, objects in chosen.items():
            for rank, found in enumerate(objects, start=1):
                ranks.setdefault((found.record, found.index), {})[measure] = rank
        by_place = {(found.record, found.index): found for objects in chosen.values() for found in objects}
        return [
            self._row(by_place[place], of_object) for place, of_object in ranks.items() if not self._problem(place[0])
        ]

    def _problem(self, number: int) -> str | None:
        return image_problem(self._set.records[number]["file_name"])

    def _row(self, found: PairedObject, ranks: Mapping[str, int]) -> dict[str, Any]:
        scene = Scene(self._set.records[found.record], self._classes, _SCENE_SIDE)
        place = found.telling_seed(next(iter(ranks)))
        shown = {_BASELINE: found.baseline[place], self._who: found.gan[place]}
        masks = {who: fate.prediction.mask if fate.prediction else None for who, fate in shown.items()}
        numbers = "; ".join(
            f"{name} {shown[_BASELINE][key]:.2f} (baseline) and {shown[self._who][key]:.2f} ({self._who})"
            for key, name in MEASURES.items()
        )
        reasons = " and ".join(
            f"{signed(found.gain(key))} by {MEASURES[key]} (no. {rank}{self._each(found.gains(key))})"
            for key, rank in ranks.items()
        )
        caption = (
            f"A {scene.name(found.truth)} in {self._file(found.record)}: {self._who} minus baseline is {reasons}. "
            f"{self._pictured(place)}{numbers}."
        )
        return {"tiles": close_up(scene.pixels, found.truth.mask, masks), "caption": caption}

    def scenes(self, baselines: Sequence[RunOnImages], gans: Sequence[RunOnImages]) -> list[dict[str, Any]]:
        """Whole images: the greatest gain in mean mask IoU, the median, and the greatest loss."""
        gains = []
        for number, record in enumerate(self._set.records):
            truth = panels.instances_of_record(record)
            scores = [[_image_score(truth, run.found[number]) for run in side] for side in (baselines, gans)]
            gains.append([gan - base for base, gan in zip(*scores, strict=True)])
        means = [float(np.mean(of_image)) for of_image in gains]
        ranked = sorted((n for n in range(len(means)) if not self._problem(n)), key=lambda n: -means[n])
        if not ranked:
            return []
        last = len(ranked) - 1
        places = {last // 2: "median", last: "greatest loss" if means[ranked[last]] < 0 else "least gain"}
        places[0] = "greatest gain" if means[ranked[0]] > 0 else "least loss"
        return [
            self._scene(ranked[place], title, gains[ranked[place]], baselines, gans)
            for place, title in sorted(places.items())
        ]

    def _scene(
        self,
        number: int,
        title: str,
        gains: Sequence[float],
        baselines: Sequence[RunOnImages],
        gans: Sequence[RunOnImages],
    ) -> dict[str, Any]:
        scene = Scene(self._set.records[number], self._classes, _SCENE_SIDE)
        place = telling(gains)
        found = {_BASELINE: baselines[place].found[number], self._who: gans[place].found[number]}
        tiles = [scene.image(), scene.annotated()]
        tiles += [scene.predicted(masks, f"{who}: {len(masks)} predicted") for who, masks in found.items()]
        tiles += [scene.difference(masks, who) for who, masks in found.items()]
        scores = " and ".join(f"{_image_score(scene.truth, masks):.2f} ({who})" for who, masks in found.items())
        each = f" ({self._each(gains).removeprefix('; ')})" if len(gains) > 1 else ""
        caption = (
            f"{title.capitalize()} of {len(self._set.records)} images, {self._file(number)}: {self._who} minus "
            f"baseline is {signed(float(np.mean(gains)))} by mean mask IoU{each}. {self._pictured(place)}mean mask IoU "
            f"{scores}."
        )
        return {"tiles": tiles, "caption": caption}

    def _file(self, number: int) -> str:
        return Path(self._set.records[number]["file_name"]).name

    def _pictured(self, place: int) -> str:
        seed = f", which are of seed {self._seeds[place]}" if len(self._seeds) > 1 else ""
        return f"In the pictures{seed}: "

    def _each(self, gains: Sequence[float]) -> str:
        if len(gains) < 2:
            return ""
        return "".join(f"; seed {seed}: {signed(gain)}" for seed, gain in zip(self._seeds, gains, strict=True))


def _image_score(truth: Sequence[panels.Instance], found: Sequence[panels.Instance]) -> float:
    # nothing to find and nothing found is as good as it gets
    score = panels.image_iou(truth, found)
    return 1.0 if score is None else score


def write_versus_report(
    baselines: Sequence[Path], gans: Sequence[Path], path: Path, *, score_threshold: float = 0.5
) -> Path:
    """Compare the predictions of runs on the test sets that they have in common.

    Args:
        baselines, gans: OUTPUT_DIRs, one a seed, in the same order.
        path: of the report, whose folder is made if need be.
        score_threshold: predictions below it, in [0, 1], do not count.

    Returns:
        `path`.

    Raises:
        UserError: the sides do not have as many runs, no test set in common, or a run cannot be read; or `path` cannot
            be written.
    """
    if len(baselines) != len(gans):
        raise UserError(
            f"--baseline names {len(baselines)} and --gan {len(gans)} runs; name one of each for every seed, in the "
            "same order."
        )
    configs, shared = _configs([*baselines, *gans])
    seeds = _seeds(configs[len(baselines) :])
    names = {folder.resolve().name for folder in gans}
    who = names.pop() if len(names) == 1 else "GAN"
    sections = [versus(TestSet(name, score_threshold), baselines, gans, who, seeds) for name in shared]
    page = template("versus.html.j2").render(
        who=who,
        runs=[
            {"seed": seed, "baseline": base, "gan": gan} for seed, base, gan in zip(seeds, baselines, gans, strict=True)
        ],
        sections=dict(zip(shared, sections, strict=True)),
        curves=[drawing(curve) for curve in draw_curves(read_metrics(gans[0] / FILE))],
        **reading_help(score_threshold),
    )
    return save_page(page, path)


def reading_help(score_threshold: float) -> dict[str, Any]:
    """What the macro "how_to_read" of the template takes."""
    return {
        "score_threshold": score_threshold,
        "least_iou": LEAST_IOU,
        "difference_legend": list(panels.DIFFERENCE_LEGEND.values()),
        "outline_legend": list(panels.OUTLINE_LEGEND.items()),
    }


def _configs(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """The configs of all runs, and the test sets that they share."""
    read = [(folder, *read_config(folder)) for folder in folders]
    for folder, _, names, problem in read:
        if not names:
            raise UserError(f"{folder} cannot be compared: {problem or 'its DATASETS.TEST is empty.'}")
    shared = [name for name in read[0][2] if all(name in names for _, _, names, _ in read)]
    if not shared:
        raise UserError("The runs have no test set in common; compare runs that were evaluated on the same images.")
    return [config for _, config, _, _ in read], shared


def _seeds(configs: Sequence[dict[str, Any]]) -> list[str]:
    """What the runs call their seeds; their numbers, if that does not tell them apart."""
    seeds = [str(config.get("SEED", -1)) for config in configs]
    return seeds if len(set(seeds)) == len(seeds) else [str(number) for number in range(1, len(seeds) + 1)]
