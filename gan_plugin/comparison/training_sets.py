"""Comparing training sets: the same Mask R-CNN, the same iterations, other images to learn from.

What the projects' A/B verbs have in common; each knows its own sets, what would make them unfair, and its story.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from detectron2.config import CfgNode

import gan_plugin
from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import USER_ERROR_EXIT_CODE, UserError

from .arms import BASELINE, Settings
from .conduct import conduct
from .plan import Plan, Split, assemble_plan
from .report import REPORT, Story

# name of a set -> its COCO JSON and the folder of its images
CocoSets = Mapping[str, tuple[Path, Path]]


def train_net() -> Path:
    """tools/train_net.py, which an installation has in the package `gan_plugin_tools` and a checkout in `tools`.

    Raises:
        UserError: neither is there.
    """
    beside = Path(gan_plugin.__file__).resolve().parents[1]
    tools = [beside / folder / "train_net.py" for folder in ("gan_plugin_tools", "tools")]
    for tool in tools:
        if tool.is_file():
            return tool
    raise UserError(f"{tools[0]} is missing; install gan_plugin again, or run it from a checkout of the repository.")


def training_sets_plan(
    cfg: CfgNode,
    sets: CocoSets,
    *,
    arms: Mapping[str, Sequence[str]],
    test: str,
    sizes: Mapping[str, int],
    config_file: str,
    seeds: Sequence[int],
    iterations: tuple[int, int],
) -> Plan:
    """Plan a comparison: model A learns from the baseline's set, then each arm goes on from its weights.

    Args:
        cfg: of a Mask R-CNN; its data sets do not matter. No arm has an adversary.
        sets: all that are needed.
        arms: name -> names of the sets that it trains on; the baseline has one.
        test: name of the set that all are evaluated on.
        sizes: images of the baseline's set and of the test set.
        config_file: where `cfg` came from, for the report.
        seeds: one model A for each.
        iterations: of model A and of each arm.

    Raises:
        UserError: a set or a number is not usable.
    """
    (real,) = arms[BASELINE]
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.COCO_JSON = tuple(
        (name, str(annotations.resolve()), str(images.resolve())) for name, (annotations, images) in sets.items()
    )
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(name for name in sets if name != test), (test,)
    prepare_datasets(cfg, train=True)
    counts = [sizes[real], sizes[real], sizes[test]]
    settings: dict[str, Settings] = {
        arm: {"MODEL.GAN.ENABLED": False, "DATASETS.TRAIN": list(names)} for arm, names in arms.items()
    }
    split = Split([real, real, test], counts, counts)
    return assemble_plan(cfg, config_file=config_file, split=split, arms=settings, seeds=seeds, iterations=iterations)


def check_classes(cfg: CfgNode, classes: int, what: str) -> None:
    """Raise a UserError unless `cfg` has as many classes as the sets, which `what` names in the plural."""
    if classes != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise UserError(
            f"The config has MODEL.ROI_HEADS.NUM_CLASSES {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, the {what} have {classes} "
            "classes; set it to that."
        )


def plan_words(plan: Plan) -> list[str]:
    """The command line's options that give `plan`, without --output."""
    words = ["--config-file", plan.config_file, "--seeds", *map(str, plan.seeds)]
    return [*words, "--iters-a", str(plan.iterations_a), "--iters-b", str(plan.iterations_b)]


def named_paths(
    texts: Sequence[str], option: str, form: str = "NAME=JSON", taken: Sequence[str] = ()
) -> dict[str, str]:
    """The values of an option that names the sets of the arms, by name.

    Args:
        texts: NAME=PATH each.
        option, form: what the option is called, and how its values are written, for messages.
        taken: names that mean something else.

    Raises:
        UserError: an entry has another form, or its name is taken or there twice.
    """
    paths: dict[str, str] = {}
    for text in texts:
        name, sign, path = text.partition("=")
        if not (sign and name and path) or name in (*taken, *paths):
            raise UserError(f"{option} {text!r} is no {form} with a name of its own.")
        paths[name] = path
    return paths


class MakePlan(Protocol):
    """A project's plan for its sets, by `training_sets_plan`."""

    def __call__(
        self, cfg: CfgNode, *, config_file: str, seeds: Sequence[int], iterations: tuple[int, int]
    ) -> Plan: ...


def compare_training_sets(args: argparse.Namespace, make_plan: MakePlan, tell: Callable[[Plan], Story]) -> int:
    """Plan, run what is left, write the report, print the differences of the story's headline.

    Args:
        args: with config_file, opts, seeds, iters_a, iters_b, output and jobs.
        make_plan: checks the sets and plans their comparison.
        tell: the words of the report on it.

    Returns:
        The exit code.

    Raises:
        UserError: an argument is not usable, or a set cannot be used.
    """
    iterations = (args.iters_a, args.iters_b)
    plan = make_plan(load_config(args), config_file=args.config_file, seeds=args.seeds, iterations=iterations)
    story, output = tell(plan), args.output
    results = conduct(plan, output, train_net(), jobs=args.jobs, story=story)
    for task in ("segm", "bbox"):
        print_differences(results["statistics"], f"{task}/{story.headline}")
    print(f"Report: {output / REPORT}")
    for name, sentence in results["failures"].items():
        print(f"error: {name} failed: {sentence}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE if results["failures"] else 0


def print_differences(statistics: Mapping[str, Any], metric: str) -> None:
    """A line for each arm that differs from the baseline; where a class has no AP of its own, that of all."""
    rows = statistics.get(metric) or statistics.get(metric.partition("-")[0], {})
    for arm, row in rows.items():
        difference = row["difference"]
        if difference and difference["mean"] is not None:
            interval = difference["interval"]
            span = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
            print(f"{metric}, {arm} minus baseline: {difference['mean']:+.2f}{span}, {difference['verdict']}")
