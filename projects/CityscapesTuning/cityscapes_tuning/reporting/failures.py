"""Where the best variant fails, found by rule: doubtful truth, doubles, confused classes, crowded objects."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_plugin.data.pictures import read_rgb
from gan_plugin.visualization.curves import INK
from gan_plugin.visualization.panels import Instance, draw_instances, instances_of_record

from ..data.mapper import mask_box
from .gather import Judged
from .picture import Picture, new_axes, photo, plot, side_by_side

_SURE, _FOUND, _APART = 0.7, 0.5, 0.1
_MOST = 6


@dataclass(frozen=True)
class Failure:
    """A case for the gallery: an image, what to draw on it, and the text."""

    kind: str
    image: Any
    instance: Instance
    text: str


KINDS = {
    "invented": "sure predictions (score 0.7 or more) where the truth has nothing: a missing annotation, a "
    "reflection, or an invention",
    "double": "riders that are found with a score of 0.5 or more, and given as a person as well",
    "confused": "objects found with a good mask (score 0.5 or more, IoU above 0.5) and the wrong class",
    "hidden": "objects that no prediction with a score of 0.5 or more finds, with a box that another object's covers "
    "by more than half",
}


def find_failures(judged: Judged, records: list[dict[str, Any]]) -> list[Failure]:
    """All cases of every kind, the surest predictions and the largest objects first."""
    cases: list[Failure] = []
    for record in records:
        image = record["image_id"]
        found, truth, pairs = judged.predictions.get(image, []), instances_of_record(record), judged.pairs[image]
        cases += _of_predictions(judged, image, found, pairs)
        cases += _hidden(judged, image, truth, pairs)
    return sorted(cases, key=lambda case: -case.instance.score)


def _of_predictions(judged: Judged, image: Any, found: list[Instance], pairs: Any) -> list[Failure]:
    cases = []
    names = judged.classes
    for number, instance in enumerate(found):
        overlaps = pairs.iou[number]
        best = int(overlaps.argmax()) if overlaps.size else -1
        near = float(overlaps[best]) if best >= 0 else 0.0
        own = names[instance.label]
        on_crowd = pairs.crowd is not None and pairs.crowd[number] > _FOUND
        if instance.score >= _SURE and near < _APART and not on_crowd:
            cases.append(Failure("invented", image, instance, f"{own} {instance.score:.2f}"))
        elif instance.score >= _FOUND and near > _FOUND and pairs.truth_classes[best] != instance.label:
            is_name = names[pairs.truth_classes[best]]
            same = (pairs.iou[:, best] > _FOUND) & (pairs.classes == pairs.truth_classes[best])
            rider = is_name == "rider" and own == "person" and bool((same & (pairs.scores >= _FOUND)).any())
            cases.append(Failure("double" if rider else "confused", image, instance, f"{is_name} taken as {own}"))
    return cases


def _hidden(judged: Judged, image: Any, truth: list[Instance], pairs: Any) -> list[Failure]:
    cases = []
    boxes = [mask_box(instance.mask) for instance in truth]
    for number, instance in enumerate(truth):
        hit = ((pairs.iou[:, number] > _FOUND) & (pairs.scores >= _FOUND)).any() if len(pairs.scores) else False
        covered = max((_share(boxes[number], other) for i, other in enumerate(boxes) if i != number), default=0.0)
        if not hit and covered > 0.5:
            area = float(instance.mask.mean())
            cases.append(
                Failure("hidden", image, Instance(instance.rle, instance.label, area), judged.classes[instance.label])
            )
    return cases


def _share(box: tuple[int, ...], other: tuple[int, ...]) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0, width) * max(0, height) / max(1, (box[2] - box[0]) * (box[3] - box[1]))


def failure_pictures(judged: Judged, content: Mapping[str, Any]) -> list[Picture]:
    """A gallery for each kind that occurs, and which class is taken for which."""
    records = {record["image_id"]: record for record in content["records"]}
    cases = find_failures(judged, content["records"])
    pictures = [_confusion(judged)] if confusion(judged) else []
    for kind, said in KINDS.items():
        own = [case for case in cases if case.kind == kind]
        tiles = [
            _tile(case, records[case.image]) for case in own[:_MOST] if Path(records[case.image]["file_name"]).is_file()
        ]
        if tiles:
            caption = f"{len(own)} {said}. Shown: {'; '.join(case.text for case in own[:_MOST])}."
            pictures.append(photo(f"failures_{kind}", caption, side_by_side(tiles, 3, 300)))
    return pictures


def _tile(case: Failure, record: Mapping[str, Any]) -> np.ndarray:
    image = read_rgb(record["file_name"])
    drawn = draw_instances(image, [case.instance.mask], [case.text], [(230, 159, 0)])
    x0, y0, x1, y1 = mask_box(case.instance.mask)
    side = min(max(48, 2 * (x1 - x0), 2 * (y1 - y0)), *image.shape[:2])
    left = min(max(0, (x0 + x1 - side) // 2), image.shape[1] - side)
    top = min(max(0, (y0 + y1 - side) // 2), image.shape[0] - side)
    return drawn[top : top + side, left : left + side]


def confusion(judged: Judged) -> dict[tuple[str, str], int]:
    """(true class, predicted class) -> objects whose surest good mask (IoU above 0.5) has that class."""
    counts: Counter[tuple[str, str]] = Counter()
    for pairs in judged.pairs.values():
        for number, label in enumerate(pairs.truth_classes):
            good = np.flatnonzero((pairs.iou[:, number] > _FOUND) & (pairs.scores >= _FOUND))
            if len(good):
                surest = good[pairs.scores[good].argmax()]
                counts[judged.classes[label], judged.classes[pairs.classes[surest]]] += 1
    return dict(counts)


def _confusion(judged: Judged) -> Picture:
    counts = confusion(judged)
    names = judged.classes
    table = np.array([[counts.get((a, b), 0) for b in names] for a in names], float)
    figure, axes = new_axes(5.6, 4.4)
    axes.grid(False)
    share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(table):
        if value:
            ink = "black" if share[row, column] > 0.5 else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    caption = "Objects found (score 0.5 or more, IoU above 0.5): their class (rows) and the predicted one (columns)."
    return plot("class_confusion", caption, figure)
