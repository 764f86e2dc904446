#!/usr/bin/env python
"""Does the adversarial loss help? Fine-tune on A, then each arm on B from the same weights; several seeds; a report.

    python tools/compare.py --config-file FILE --arms baseline lsgan --seeds 0 1 2 --iters-a N --iters-b M \\
        --output DIR [--jobs K] [--sizes A B EVAL] [--dry-run] [KEY VALUE ...]

The data set of DATASETS.TRAIN is split into A, B and held-out images. KEY VALUE pairs change the config of all runs; an
arm's own keys go over them. DIR gets results.json, results.csv, report.html and an ordinary run of tools/train_net.py
in seed<S>/a (on A) and seed<S>/<arm> (on B). The same command again continues what is not finished and computes nothing
anew; more arms and seeds may be added. Exit code 2: a run failed, or the input is wrong.
"""

import argparse
import sys
from pathlib import Path

from gan_plugin.comparison.arms import ARMS, BASELINE
from gan_plugin.comparison.conduct import conduct
from gan_plugin.comparison.estimate import describe, measure
from gan_plugin.comparison.plan import Plan, make_plan
from gan_plugin.comparison.report import REPORT
from gan_plugin.comparison.workspace import known_plan
from gan_plugin.engine.setup import load_config
from gan_plugin.errors import USER_ERROR_EXIT_CODE, UserError, run_command_line
from gan_plugin.signals import Stopped

TRAIN_NET = Path(__file__).resolve().with_name("train_net.py")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    arms = "\n".join(f"  {name:10} {arm.description}" for name, arm in ARMS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"arms:\n{arms}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the config that all runs share")
    parser.add_argument("--arms", nargs="+", default=[BASELINE, "lsgan"], metavar="ARM", help="see below")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S", help="3 or more, or none is sure"
    )
    parser.add_argument("--iters-a", type=int, required=True, metavar="N", help="iterations on A")
    parser.add_argument(
        "--iters-b", type=int, required=True, metavar="M", help="iterations on B, the same for all arms"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of this comparison alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="K", help="runs at a time")
    parser.add_argument("--sizes", nargs=3, type=int, metavar=("A", "B", "EVAL"), help="images; default: the config's")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its estimated time, and run nothing")
    args, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("--")]:
        parser.error(f"unknown option {unknown[0]}")
    args.opts = rest
    return args


def asked_plan(args: argparse.Namespace) -> Plan:
    """The plan that the command line describes."""
    if args.jobs < 1:
        raise UserError(f"--jobs is {args.jobs}; set it to 1 or more.")
    return make_plan(
        load_config(args),
        config_file=args.config_file,
        arms=args.arms,
        seeds=args.seeds,
        iterations=(args.iters_a, args.iters_b),
        sizes=args.sizes,
    )


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    asked = asked_plan(args)
    if args.dry_run:
        plan = known_plan(args.output, asked)
        print(describe(plan, args.output, measure(plan, TRAIN_NET), args.jobs))
        return 0
    try:
        return compare(asked, args.output, args.jobs)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code


def compare(asked: Plan, output: Path, jobs: int) -> int:
    """Run what is left, and write the results of all."""
    results = conduct(asked, output, TRAIN_NET, jobs=jobs)
    plan = results["plan"]
    print(f"Arms: {', '.join(plan['arms'])}. Seeds: {', '.join(map(str, plan['seeds']))}. Report: {output / REPORT}")
    for name, sentence in results["failures"].items():
        print(f"error: {name} failed: {sentence}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
