"""Statistics, examples and figures of a data set as one HTML page.

    inpaint.py inspect output/steel --out output/steel.html
    inpaint.py inspect instances.json --images pictures/ --out output/mine.html --numbers output/mine
    inpaint.py inspect output/steel/objects/2 --out output/scratches.html

DATA is a prepared data set, one line set in it (a folder with dataset.jsonl), one of its sets of cut-out objects, or
anything that prepare takes.
"""

import argparse

from coigan.commands._arguments import add_source_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    add_source_arguments(parser)
    numbers = "a folder that gets the numbers as brief_report.json and raw_report.json"
    parser.add_argument("--numbers", default="", metavar="DIR", help=numbers)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the examples")
    parser.add_argument("--workers", type=int, default=-1, metavar="N", help="processes; -1 for one a core")


def run(args: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        UserError: see `write_data_report`.
    """
    from coigan.visualization.data_report import write_data_report

    page = write_data_report(args.data, args.out, args.seed, args.format, args.images, args.workers, args.numbers)
    print(f"Report: {page}")
