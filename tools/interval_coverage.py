#!/usr/bin/env python
"""Do the intervals of a comparison hold the truth as often as they say? A simulation, as a table and a figure.

    python tools/interval_coverage.py --output docs/results/interval_coverage.svg
    python tools/interval_coverage.py --comparison DIR --output FILE.svg

Comparisons are drawn whose true difference is known, with the spreads over seeds and test images that were measured, or
with those of the finished comparison DIR (then DETECTRON2_DATASETS and its runs must be where they were); normal, and
with long tails. The exit code is 1 if the interval over seeds and images holds the truth in less than 93 %.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from _command_line import Parser, positive, run_command_line

if TYPE_CHECKING:
    from gan_plugin.comparison.coverage import Spreads


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.svg", help="the figure")
    parser.add_argument("--comparison", type=Path, metavar="DIR", help="the --output of tools/compare.py")
    parser.add_argument("--comparisons", type=positive, default=1000, metavar="N", help="simulated for each row")
    parser.add_argument("--seeds", type=positive, nargs="+", default=[3, 4, 5, 7, 10], metavar="N", help="of each")
    parser.add_argument("--images", type=positive, default=40, metavar="N", help="held out in each")
    return parser.parse_args(arguments)


def measured_in(folder: Path) -> "Mapping[str, Spreads]":
    """The spreads of each arm of a finished comparison in each main metric.

    Raises:
        UserError: it cannot be read, or its runs have left too little.
    """
    from detectron2.data import DatasetCatalog

    from gan_plugin.comparison.arms import BASELINE
    from gan_plugin.comparison.coverage import spreads_of
    from gan_plugin.comparison.plan import Plan
    from gan_plugin.comparison.resampling import resampled_gaps, resampled_scores
    from gan_plugin.comparison.results import RESULTS
    from gan_plugin.comparison.run import CONFIG
    from gan_plugin.data.builtin import prepare_datasets
    from gan_plugin.engine.setup import load_config
    from gan_plugin.errors import UserError, as_user_error

    file = folder / RESULTS
    with as_user_error(f"{file} cannot be read", "name the --output of tools/compare.py"):
        results = json.loads(file.read_text(encoding="utf-8"))
        plan = Plan.from_dict(results["plan"])
        runs = results["runs"]
    name = plan.split.names[2]
    cfg = load_config(argparse.Namespace(config_file=str(folder / CONFIG), opts=[]))
    cfg.defrost()
    cfg.DATASETS.TEST, cfg.OUTPUT_DIR = (name,), str(folder)
    prepare_datasets(cfg, train=False, compare=False)
    scores = resampled_scores(plan, folder, runs)
    pairs = [(metric, arm) for metric in plan.main for arm in plan.arms if arm != BASELINE]
    gaps = {(metric, arm): each for metric, arm in pairs if (each := resampled_gaps(scores, metric, arm)) is not None}
    if not gaps:
        raise UserError(f"{folder} has no two seeds of an arm and the baseline with their predictions in inference/.")
    images = len(DatasetCatalog.get(name))
    found = {f"{metric}, {arm}": spreads_of(each, images) for (metric, arm), each in gaps.items()}
    return {name: spreads for name, spreads in found.items() if spreads is not None}


def work(args: argparse.Namespace) -> int:
    """Simulate, print a row for each metric, tail and number of seeds, and write the figure."""
    from gan_plugin.comparison.coverage import INTERVALS, MEASURED, OVER_BOTH, REQUIRED, TAILS, coverage, draw_coverage
    from gan_plugin.comparison.run import write_if_new
    from gan_plugin.errors import UserError

    if min(args.seeds) < 2:
        raise UserError(f"--seeds is {args.seeds}; one seed has no interval, give 2 or more.")
    spreads = measured_in(args.comparison) if args.comparison else MEASURED
    found: dict[str, dict[int, list[float]]] = {name: {seeds: [] for seeds in args.seeds} for name in INTERVALS}
    print(f"{'metric':28} {'seeds':>5} {'deviation over seeds, images, both':44} interval over {' | '.join(INTERVALS)}")
    for metric, each in spreads.items():
        for seeds in args.seeds:
            for tail, draw in TAILS.items():
                shares = coverage(each, seeds=seeds, images=args.images, comparisons=args.comparisons, draw=draw)
                for name, share in shares.items():
                    found[name][seeds].append(share)
                drawn = f"{each.seeds:.2f}, {each.images:.2f}, {each.both:.2f} {tail}"
                print(f"{metric:28} {seeds:>5} {drawn:44} " + "  ".join(f"{100 * s:.1f} %" for s in shares.values()))
    picture = draw_coverage(found, args.comparisons)
    write_if_new(args.output, picture.svg)
    print(f"{picture.alt}\n{args.output}")
    least = min(share for seeds, shares in found[OVER_BOTH].items() for share in shares)
    return int(least < REQUIRED)


def main(arguments: list[str] | None = None) -> int:
    return work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
