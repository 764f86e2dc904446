"""Does a segmenter get better from synthetic defects? Train it with and without them, several seeds each.

    inpaint.py segment --train real.json --test test.json --output output/segment --seeds 0 1 2 3 4 \\
        --extra gan=gan/annotations.json copy_paste=copies/annotations.json

All arms of a seed start from the same weights and take as many steps. A run that was stopped continues.
"""

import argparse
import hashlib
import logging
from dataclasses import replace
from pathlib import Path

from coigan.choices import LOSSES, NETWORKS

from ._arguments import add_sets_arguments

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_sets_arguments(parser)
    parser.add_argument("--output", default="output/segment", metavar="DIR")
    five = [0, 1, 2, 3, 4]
    parser.add_argument("--seeds", nargs="+", type=int, default=five, metavar="S", help="five or more for a verdict")
    parser.add_argument("--preset", choices=("severstal", "cccd"), default="severstal")
    parser.add_argument("--model", choices=NETWORKS, default="unet")
    parser.add_argument("--loss", choices=LOSSES, default="log_cosh_dice")
    parser.add_argument("--steps", type=int, default=50_000, metavar="N")
    parser.add_argument("--batch", type=int, default=12, metavar="N")
    parser.add_argument("--val-every", type=int, metavar="N", help="steps between validations")
    parser.add_argument("--average", type=float, default=0.0, metavar="DECAY", help="score an average of the weights")
    parser.add_argument("--device", default="", metavar="NAME")


def run(args: argparse.Namespace) -> None:
    """Compare, write results.json, print the table.

    Raises:
        UserError: an argument makes no sense, a data set cannot be read, or the test set holds a training image.
    """
    from detectron2.utils.logger import setup_logger

    from coigan.data.split import check_apart
    from coigan.engine.players import choose_device
    from coigan.segmentation.coco import CocoMasks
    from coigan.segmentation.comparison import BASELINE, compare
    from coigan.segmentation.training import SegmentOptions, cccd
    from gan_plugin.comparison.training_sets import named_paths
    from gan_plugin.errors import UserError

    paths = {"train": args.train, "test": args.test}
    paths |= named_paths(args.extra, "--extra", taken=(*paths, BASELINE))
    if min(args.steps, args.batch) < 1:
        raise UserError("--steps and --batch must be 1 or more.")
    if not 0 <= args.average < 1:
        raise UserError(f"--average is {args.average}; set it to 0 for the last weights, or to a decay below 1.")
    options = cccd() if args.preset == "cccd" else SegmentOptions()
    options = replace(
        options,
        model=args.model,
        loss=args.loss,
        steps=args.steps,
        batch=args.batch,
        average=args.average,
        val_every=args.val_every or min(options.val_every, args.steps),
        device=str(choose_device(args.device)),
    )
    setup_logger(args.output, name="coigan")
    sets = {name: CocoMasks(path) for name, path in paths.items()}
    check_apart(sets["train"].pictures(), sets["test"].pictures())
    extras = {name: data for name, data in sets.items() if name not in ("train", "test")}
    # a set that was written anew is another one
    sources = {name: f"{path}, SHA-256 {_digest(path)}" for name, path in paths.items()}
    report = compare(sets["train"], sets["test"], extras, args.seeds, options, Path(args.output), sources)
    print(_table(report["summary"], [BASELINE, *extras]))


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _table(summary: dict, arms: list[str]) -> str:
    from tabulate import tabulate

    from coigan.segmentation.comparison import METRICS

    rows = []
    for metric in METRICS:
        for arm in arms:
            entry = summary[metric][arm]
            gap = entry["difference"]
            interval = gap and gap["interval"]
            shown = "" if not interval else f"{gap['mean']:+.4f} [{interval[0]:+.4f}, {interval[1]:+.4f}]"
            rows.append([metric, arm, entry["mean"], entry["std"], shown, gap["verdict"] if gap else ""])
    heads = ["metric", "arm", "mean", "std", "difference to real alone", "shows"]
    return tabulate(rows, heads, "github", floatfmt=".4f")
