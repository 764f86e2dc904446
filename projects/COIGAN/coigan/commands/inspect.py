"""Statistics, examples and figures of a data set as one HTML page.

    inpaint.py inspect output/steel --out output/steel.html

DATA is a prepared data set, or one line set in it (a folder with dataset.jsonl).
"""

import argparse

from coigan.inspection.report import write_data_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("--out", required=True, metavar="FILE", help="the page to write")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the examples")


def run(args: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        UserError: see `write_data_report`.
    """
    print(f"Report: {write_data_report(args.data, args.out, args.seed)}")
