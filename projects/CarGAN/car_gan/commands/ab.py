"""The car AP of a Mask R-CNN with and without synthetic cars: several seeds, an interval for each difference.

    cars.py compose --cityscapes DIR --output real MIX 0 SPLITS "('train',)"
    cars.py compose --cityscapes DIR --output composed --samples SAMPLES SPLITS "('train',)"
    cars.py compose --cityscapes DIR --output copies --samples crops SPLITS "('train',)"
    cars.py compose --cityscapes DIR --output test MIX 0 SPLITS "('val',)"
    cars.py ab --config-file configs/mask_rcnn_cityscapes.yaml --real real --composed composed copies=copies \\
        --test test --iters-a N --iters-b M --output OUT

OUT gets results.json, results.csv, report.html and an ordinary run of tools/train_net.py in seed<S>/<arm>. The same
command again continues; more arms and seeds may be added. KEY VALUE pairs at the end change the config of all
runs; right after an option of several values, such as --seeds, put -- before them.
"""

import argparse
from functools import partial
from pathlib import Path

from _command_line import add_plan_arguments

_ONLY = "synthetic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    for name, what in (("real", "scenes as they are"), ("test", "other scenes")):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR", help=f"{what}, by cars.py compose")
    parser.add_argument(
        "--composed",
        nargs="+",
        required=True,
        metavar="[NAME=]DIR",
        help=f"the scenes of --real with new cars, an arm each; without a NAME it is {_ONLY}",
    )
    parser.add_argument("--both", action="store_true", help="a second arm for each, trained on --real besides")
    parser.add_argument("--category", default="car", help="whose AP is shown first")
    add_plan_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, run what is left, write the report, print the differences."""
    from car_gan.ab import Sets, ab_story, check_category_of, make_ab_plan
    from gan_plugin.comparison.training_sets import compare_training_sets, named_paths

    composed = [text if "=" in text else f"{_ONLY}={text}" for text in args.composed]
    folders = {name: Path(path) for name, path in named_paths(composed, "--composed", "[NAME=]DIR").items()}
    sets = Sets(args.real, folders, args.test, args.both)
    check_category_of(sets, args.category)
    story = partial(ab_story, sets=sets, category=args.category)
    return compare_training_sets(args, partial(make_ab_plan, sets=sets), story)
