"""Do generated cars help a detector? The same Mask R-CNN on scenes as they are and on the same scenes with new cars."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from car_gan.compose.compose import ANNOTATIONS
from gan_plugin.comparison.arms import BASELINE
from gan_plugin.comparison.plan import MODEL_A, Plan
from gan_plugin.comparison.report import Story
from gan_plugin.comparison.training_sets import check_classes, plan_words, training_sets_plan
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.rules import check_name

REAL, TEST = "ab_real", "ab_test"
# ending of the arms that train on the real scenes besides
BOTH = "_and_real"


@dataclass(frozen=True)
class Sets:
    """Folders that cars.py compose has filled.

    Attributes:
        real, test: scenes as they are (MIX 0), to train on and to test on.
        composed: name of an arm -> the scenes of `real` with new cars.
        both: whether each of these has a second arm, which trains on the real scenes besides.
    """

    real: Path
    composed: Mapping[str, Path]
    test: Path
    both: bool = False

    def arms(self) -> dict[str, list[str]]:
        """Name of an arm -> names of the sets that it trains on."""
        arms = {BASELINE: [REAL]}
        for name in self.composed:
            arms[name] = [f"ab_{name}"]
            if self.both:
                arms[f"{name}{BOTH}"] = [REAL, f"ab_{name}"]
        return arms

    def folders(self) -> dict[str, Path]:
        """Name of a set -> its folder."""
        return {REAL: self.real, **{f"ab_{name}": folder for name, folder in self.composed.items()}, TEST: self.test}

    @cached_property
    def contents(self) -> dict[str, dict[str, Any]]:
        """Name of a set -> its COCO JSON, read once; a UserError if a folder has none of cars.py compose."""
        return {name: _read(folder) for name, folder in self.folders().items()}


def make_ab_plan(
    cfg: CfgNode, sets: Sets, *, config_file: str, seeds: Sequence[int], iterations: tuple[int, int]
) -> Plan:
    """Plan the comparison: model A on the real scenes, then each arm from its weights on its own scenes.

    Args:
        cfg: of a Mask R-CNN; its data sets do not matter, the number of its classes does.
        sets: checked for what would make the comparison unfair.
        config_file: where `cfg` came from, for the report.
        seeds: one model A for each.
        iterations: of model A and of each arm.

    Raises:
        UserError: a folder, a name or a number is not usable, or the sets do not fit each other.
    """
    sizes, classes = check_sets(sets)
    check_classes(cfg, classes, "scenes")
    return training_sets_plan(
        cfg,
        {name: (folder / ANNOTATIONS, folder) for name, folder in sets.folders().items()},
        arms=sets.arms(),
        test=TEST,
        sizes=sizes,
        config_file=config_file,
        seeds=seeds,
        iterations=iterations,
    )


def check_sets(sets: Sets) -> tuple[dict[str, int], int]:
    """The number of scenes in each set by name, and the number of classes.

    Raises:
        UserError: a folder was not made by cars.py compose, `real` or `test` holds synthetic objects, a composed set is
            of other scenes than `real` or has no synthetic object, `test` shares a scene with them, their classes
            differ, or an arm's name means something else.
    """
    contents = sets.contents
    scenes = {name: {image["source_image"] for image in content["images"]} for name, content in contents.items()}
    for name in sets.composed:
        if name in (BASELINE, MODEL_A, "real", "test") or name.endswith(BOTH) or not name.isidentifier():
            raise UserError(f"An arm cannot be called {name!r}; give --composed another NAME, such as synthetic.")
    for name, folder in sets.folders().items():
        new = any(annotation["synthetic"] for annotation in contents[name]["annotations"])
        if name in (REAL, TEST):
            if new:
                raise UserError(f"{folder} holds synthetic objects; make it with cars.py compose ... MIX 0.")
            continue
        if not new:
            raise UserError(f"{folder} holds no synthetic object; make it with cars.py compose and a MIX above 0.")
        if other := sorted(scenes[REAL] ^ scenes[name]):
            raise UserError(f"{sets.real} and {folder} differ in the scene {other[0]}; compose both from one source.")
    if shared := sorted(scenes[REAL] & scenes[TEST]):
        raise UserError(f"{sets.test} has the scene {shared[0]}, which is trained on; use other scenes for the test.")
    categories = contents[REAL]["categories"]
    if any(content["categories"] != categories for content in contents.values()):
        raise UserError("The sets have different categories; compose them from sources with the same ones.")
    return {name: len(names) for name, names in scenes.items()}, len(categories)


def check_category_of(sets: Sets, category: str) -> None:
    """Raise a UserError that lists the classes of the scenes unless `category` is one of them."""
    known = [entry["name"] for entry in sets.contents[REAL]["categories"]]
    check_name("--category", category, known)


def _read(folder: Path) -> dict[str, Any]:
    with as_user_error(f"{folder} has no {ANNOTATIONS} of cars.py compose", "name a folder that it filled"):
        content = json.loads((folder / ANNOTATIONS).read_text(encoding="utf-8"))
        [image["source_image"] for image in content["images"]], content["categories"]
        [annotation["synthetic"] for annotation in content["annotations"]]
    return content


def _descriptions(sets: Sets, category: str) -> Iterator[tuple[str, str]]:
    yield BASELINE, "the scenes as they are"
    for name in sets.composed:
        content = sets.contents[f"ab_{name}"]
        ids = {entry["id"] for entry in content["categories"] if entry["name"] == category}
        new = [a["synthetic"] for a in content["annotations"] if a["category_id"] in ids and not a["iscrowd"]]
        yield name, f"the same scenes, {sum(new)} new beside {len(new) - sum(new)} annotated ones (class {category})"
        yield f"{name}{BOTH}", f"the scenes as they are and those of {name}"


def ab_story(plan: Plan, sets: Sets, category: str) -> Story:
    """The words of the report."""
    composed = [f"{name}={folder}" for name, folder in sets.composed.items()]
    words = ["--real", str(sets.real), "--composed", *composed, "--test", str(sets.test), *plan_words(plan)]
    words += ["--both"] * sets.both + ["--category", category]
    return Story(
        question="Do generated cars help?",
        introduction=(
            "A Mask R-CNN was first trained on annotated scenes: model A. From its weights each arm below was trained "
            "on: the baseline with the same scenes, the others with scenes into which new objects were pasted. All "
            "arms of a seed had the same iterations and batches; all were evaluated on other scenes without any new "
            f"object. AP-{category} is the average precision of that class alone, in percent."
        ),
        training_heading="How the training went",
        training="The sum of the model's losses while it was trained; lower is better on its own training scenes.",
        descriptions={arm: text for arm, text in _descriptions(sets, category) if arm in plan.arms},
        command=f"python projects/CarGAN/cars.py ab {shlex.join(words)} --output DIR",
        headline=f"AP-{category}",
        adversarial=False,
    )
