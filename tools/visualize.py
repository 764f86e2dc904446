#!/usr/bin/env python
"""Write one HTML file about a run: its numbers, curves, test images and what its discriminator says.

    DETECTRON2_DATASETS=datasets python tools/visualize.py OUTPUT_DIR [--out report.html] [--score 0.5]

Or one about two runs, object by object: where a GAN gains on its baseline and where it loses. With several seeds, name
the runs of each side in the same order.

    DETECTRON2_DATASETS=datasets python tools/visualize.py --baseline DIR [DIR ...] --gan DIR [DIR ...] [--out FILE]

The DIRs are OUTPUT_DIRs of runs. The data sets are needed for the images only. Exit code 2: the input is wrong.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from _command_line import Parser, run_command_line, score

VERSUS = "versus_baseline.html"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, nargs="?", help="the folder of the run")
    parser.add_argument("--baseline", nargs="+", type=Path, metavar="DIR", help="runs without an adversary")
    parser.add_argument("--gan", nargs="+", type=Path, metavar="DIR", help="as many runs to compare with them")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"default: OUTPUT_DIR/report.html, or {VERSUS} beside the first --gan"
    )
    parser.add_argument("--score", type=score, default=0.5, metavar="S", help="the least score of a mask that is drawn")
    args = parser.parse_args(arguments)
    if bool(args.baseline) != bool(args.gan) or bool(args.output_dir) == bool(args.gan):
        parser.error("name the OUTPUT_DIR of one run, or runs to compare with both --baseline and --gan")
    return args


def work(args: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from gan_plugin.visualization.report import write_report
    from gan_plugin.visualization.versus import write_versus_report

    if args.gan:
        target = args.out or args.gan[0] / VERSUS
        print(write_versus_report(args.baseline, args.gan, target, score_threshold=args.score))
    else:
        print(write_report(args.output_dir, args.out or args.output_dir / "report.html", score_threshold=args.score))


def main(arguments: list[str] | None = None) -> None:
    work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
