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
import ast
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from _command_line import Parser, positive, run_command_line

if TYPE_CHECKING:
    from gan_plugin.comparison.plan import Plan

_MORE = """  ARM-frozen  a control: an adversary of these, whose discriminators keep their first, random weights
  boxinst-ARM  any of these with the losses of boxinst beside it"""
TRAIN_NET = Path(__file__).resolve().with_name("train_net.py")


def arm_descriptions() -> dict[str, str]:
    """What gan_plugin.comparison.arms says of each arm, read from its source: importing it takes seconds."""
    spec = find_spec("gan_plugin")
    source = Path((spec and spec.submodule_search_locations or [""])[0], "comparison", "arms.py")
    assigned = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                assigned[name] = value
    arms = assigned["ARMS"]
    names = [ast.literal_eval(assigned[key.id] if isinstance(key, ast.Name) else key) for key in arms.keys]
    return {name: ast.literal_eval(arm.args[0]) for name, arm in zip(names, arms.values, strict=True)}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    arms = "\n".join(f"  {name:10} {description}" for name, description in arm_descriptions().items())
    parser = Parser(__doc__, epilog=f"arms:\n{arms}\n{_MORE}")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="the config that all runs share")
    parser.add_argument("--arms", nargs="+", default=["baseline", "lsgan"], metavar="ARM", help="see below")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S", help="3 or more, or none is sure"
    )
    parser.add_argument("--iters-a", type=int, required=True, metavar="N", help="iterations on A")
    parser.add_argument(
        "--iters-b", type=int, required=True, metavar="M", help="iterations on B, the same for all arms"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of this comparison alone")
    parser.add_argument("--jobs", type=positive, default=1, metavar="K", help="runs at a time")
    parser.add_argument("--sizes", nargs=3, type=int, metavar=("A", "B", "EVAL"), help="images; default: the config's")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its estimated time, and run nothing")
    args, rest = parser.parse_known_args(arguments)
    if unknown := [word for word in rest if word.startswith("--")]:
        parser.error(f"unknown option {unknown[0]}")
    args.opts = rest
    return args


def asked_plan(args: argparse.Namespace) -> "Plan":
    """The plan that the command line describes."""
    from gan_plugin.comparison.plan import make_plan
    from gan_plugin.engine.setup import load_config

    return make_plan(
        load_config(args),
        config_file=args.config_file,
        arms=args.arms,
        seeds=args.seeds,
        iterations=(args.iters_a, args.iters_b),
        sizes=args.sizes,
    )


def work(args: argparse.Namespace) -> int:
    """Plan, and run what is left unless only the plan is asked for; returns the exit code."""
    from gan_plugin.comparison.conduct import describe, measure
    from gan_plugin.comparison.run import known_plan

    asked = asked_plan(args)
    if args.dry_run:
        plan = known_plan(args.output, asked)
        print(describe(plan, args.output, measure(plan, TRAIN_NET), args.jobs))
        return 0
    return compare(asked, args.output, args.jobs)


def compare(asked: "Plan", output: Path, jobs: int) -> int:
    """Run what is left, and write the results of all."""
    from gan_plugin.comparison.conduct import conduct
    from gan_plugin.comparison.report import REPORT
    from gan_plugin.errors import USER_ERROR_EXIT_CODE

    results = conduct(asked, output, TRAIN_NET, jobs=jobs)
    plan = results["plan"]
    print(f"Arms: {', '.join(plan['arms'])}. Seeds: {', '.join(map(str, plan['seeds']))}. Report: {output / REPORT}")
    for name, sentence in results["failures"].items():
        print(f"error: {name} failed: {sentence}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE if results["failures"] else 0


def main(arguments: list[str] | None = None) -> int:
    return work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
