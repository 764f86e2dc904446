"""The car AP of a Mask R-CNN with and without synthetic cars: several seeds, an interval for each difference.

    cars.py compose --cityscapes DIR --output real MIX 0 SPLITS "('train',)"
    cars.py compose --cityscapes DIR --output composed --samples SAMPLES SPLITS "('train',)"
    cars.py compose --cityscapes DIR --output test MIX 0 SPLITS "('val',)"
    cars.py ab --config-file configs/mask_rcnn_cityscapes.yaml --real real --composed composed --test test \\
        --iters-a N --iters-b M --output OUT

OUT gets results.json, results.csv, report.html and an ordinary run of tools/train_net.py in seed<S>/<arm>. The same
command again continues; more arms and seeds may be added. KEY VALUE pairs at the end change the config of all runs.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from car_gan.ab import ARMS, Sets, ab_story, make_ab_plan, train_net
from gan_plugin.comparison.conduct import conduct
from gan_plugin.comparison.report import REPORT
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import USER_ERROR_EXIT_CODE, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    for name, what in (
        ("real", "scenes as they are"),
        ("composed", "the same with new cars"),
        ("test", "other scenes"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=f"{what}, by cars.py compose")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of a Mask R-CNN")
    parser.add_argument("--arms", nargs="+", default=["synthetic"], metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S", help="3 or more")
    parser.add_argument("--iters-a", type=int, required=True, metavar="N", help="iterations before the arms part")
    parser.add_argument("--iters-b", type=int, required=True, metavar="M", help="iterations of each arm")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of this comparison alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="K", help="runs at a time")
    parser.add_argument("--category", default="car", help="whose AP is shown first")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="change the config of all runs")


def run(args: argparse.Namespace) -> int:
    """Plan, run what is left, write the report, print the differences."""
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; set it to 1 or more.")
    sets = Sets(args.real, args.composed, args.test)
    plan = make_ab_plan(
        load_config(args),
        sets,
        config_file=args.config_file,
        arms=args.arms,
        seeds=args.seeds,
        iterations=(args.iters_a, args.iters_b),
    )
    results = conduct(plan, args.output, train_net(), jobs=args.jobs, story=ab_story(plan, sets, args.category))
    for task in ("segm", "bbox"):
        print_differences(results["statistics"], f"{task}/AP-{args.category}")
    print(f"Report: {args.output / REPORT}")
    for name, sentence in results["failures"].items():
        print(f"error: {name} failed: {sentence}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE if results["failures"] else 0


def print_differences(statistics: Mapping[str, Any], metric: str) -> None:
    """A line for each arm that differs from the baseline; where the class has no AP of its own, that of all."""
    rows = statistics.get(metric) or statistics.get(metric.partition("-")[0], {})
    for arm, row in rows.items():
        difference = row["difference"]
        if difference and difference["mean"] is not None:
            interval = difference["interval"]
            span = f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""
            print(f"{metric}, {arm} minus baseline: {difference['mean']:+.2f}{span}, {difference['verdict']}")
