"""Do generated cars help a detector? The same Mask R-CNN on scenes as they are and on the same scenes with new cars."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from gan_plugin.comparison.arms import BASELINE
from gan_plugin.comparison.plan import Plan
from gan_plugin.comparison.story import Story
from gan_plugin.comparison.training_sets import check_classes, plan_words, training_sets_plan
from gan_plugin.errors import UserError

from .compose.compose import ANNOTATIONS

REAL, COMPOSED, TEST = "ab_real", "ab_composed", "ab_test"
# arm -> what it is, and what it trains on
ARMS: dict[str, tuple[str, list[str]]] = {
    BASELINE: ("the scenes as they are", [REAL]),
    "synthetic": ("the same scenes, new cars in some of them", [COMPOSED]),
    "both": ("the scenes as they are and those with new cars", [REAL, COMPOSED]),
}


@dataclass(frozen=True)
class Sets:
    """The three folders that cars.py compose has filled: real (MIX 0), with new cars, and real for the test."""

    real: Path
    composed: Path
    test: Path


def make_ab_plan(
    cfg: CfgNode,
    sets: Sets,
    *,
    config_file: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    iterations: tuple[int, int],
) -> Plan:
    """Plan the comparison: model A on the real scenes, then each arm from its weights on its own scenes.

    Args:
        cfg: of a Mask R-CNN; its data sets do not matter, the number of its classes does.
        sets: checked for what would make the comparison unfair.
        config_file: where `cfg` came from, for the report.
        arms: keys of ARMS; the baseline is added.
        seeds: one model A for each.
        iterations: of model A and of each arm.

    Raises:
        UserError: a folder, an arm or a number is not usable, or the sets do not fit each other.
    """
    chosen = list(dict.fromkeys([BASELINE, *arms]))
    if unknown := [arm for arm in chosen if arm not in ARMS]:
        raise UserError(f"The arm '{unknown[0]}' is unknown; --arms takes {', '.join(ARMS)}.")
    sizes, classes = check_sets(sets)
    check_classes(cfg, classes, "scenes")
    folders = dict(zip((REAL, COMPOSED, TEST), (sets.real, sets.composed, sets.test), strict=True))
    return training_sets_plan(
        cfg,
        {name: (folder / ANNOTATIONS, folder) for name, folder in folders.items()},
        arms={arm: ARMS[arm][1] for arm in chosen},
        test=TEST,
        sizes={REAL: sizes[0], TEST: sizes[2]},
        config_file=config_file,
        seeds=seeds,
        iterations=iterations,
    )


def check_sets(sets: Sets) -> tuple[list[int], int]:
    """Images in A, B and the test set, and the number of classes.

    Raises:
        UserError: a folder was not made by cars.py compose, REAL or TEST holds synthetic objects, COMPOSED is of other
            scenes than REAL or has no synthetic object, TEST shares a scene with them, or their classes differ.
    """
    real, composed, test = (_read(folder) for folder in (sets.real, sets.composed, sets.test))
    for folder, content in ((sets.real, real), (sets.test, test)):
        if any(annotation["synthetic"] for annotation in content["annotations"]):
            raise UserError(f"{folder} holds synthetic objects; make it with cars.py compose ... MIX 0.")
    if not any(annotation["synthetic"] for annotation in composed["annotations"]):
        raise UserError(f"{sets.composed} holds no synthetic object; make it with cars.py compose and a MIX above 0.")
    names = [{image["source_image"] for image in content["images"]} for content in (real, composed, test)]
    if names[0] != names[1]:
        other = sorted(names[0] ^ names[1])[0]
        raise UserError(f"{sets.real} and {sets.composed} differ in the scene {other}; compose both from one source.")
    if shared := sorted(names[0] & names[2]):
        raise UserError(f"{sets.test} has the scene {shared[0]}, which is trained on; use other scenes for the test.")
    if not real["categories"] == composed["categories"] == test["categories"]:
        raise UserError("The three sets have different categories; compose them from sources with the same ones.")
    return [len(names[0]), len(names[0]), len(names[2])], len(real["categories"])


def _read(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / ANNOTATIONS).read_text(encoding="utf-8"))
        [image["source_image"] for image in content["images"]], content["categories"]
        [annotation["synthetic"] for annotation in content["annotations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} has no {ANNOTATIONS} of cars.py compose; name a folder that it filled.") from error
    return content


def ab_story(plan: Plan, sets: Sets, category: str) -> Story:
    """The words of the report."""
    composed = _read(sets.composed)
    ids = {entry["id"] for entry in composed["categories"] if entry["name"] == category}
    cars = [a["synthetic"] for a in composed["annotations"] if a["category_id"] in ids and not a["iscrowd"]]
    words = [*plan_words(plan), "--arms", *plan.arms]
    words += ["--real", str(sets.real), "--composed", str(sets.composed), "--test", str(sets.test)]
    return Story(
        question="Do generated cars help?",
        introduction=(
            "A Mask R-CNN was first trained on annotated street scenes: model A. From its weights each arm below was "
            "trained on: the baseline with the same scenes, the others with scenes into which generated cars were "
            f"pasted, {sum(cars)} beside {len(cars) - sum(cars)} annotated ones. All arms of a seed had the same "
            f"iterations and batches; all were evaluated on other scenes without any generated car. AP-{category} is "
            "the average precision of that class alone, in percent."
        ),
        training_heading="How the training went",
        training="The sum of the model's losses while it was trained; lower is better on its own training scenes.",
        descriptions={arm: ARMS[arm][0] for arm in plan.arms},
        command=f"python projects/CarGAN/cars.py ab {shlex.join(words)} --output DIR",
        headline=f"AP-{category}",
        pictures=False,
    )
