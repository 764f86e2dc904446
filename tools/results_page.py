#!/usr/bin/env python
"""Turn a comparison into a page of Markdown with tables and bar charts.

    python tools/results_page.py DIR --output docs/results/NAME.md --title "What was compared" [--pictures ARM ...]

DIR is the --output of tools/compare.py. The numbers and charts are those of DIR/results.json; --pictures adds of each
named arm the three objects that gain and the three that lose most, and what its discriminator says, for which
DETECTRON2_DATASETS and the runs must be where they were.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from _command_line import Parser, run_command_line


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("comparison", type=Path, metavar="DIR", help="the --output of tools/compare.py")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.md", help="the page; its folder must exist")
    parser.add_argument("--title", required=True, help="the page's heading")
    parser.add_argument("--pictures", nargs="+", default=[], metavar="ARM", help="arms to show pictures of")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """Write the page and its pictures, and print their paths."""
    from gan_plugin.comparison.page import write_page, write_pictures
    from gan_plugin.comparison.results import RESULTS, up_to_date
    from gan_plugin.errors import UserError, as_user_error

    file = args.comparison / RESULTS
    with as_user_error(f"{file} cannot be read", "name the --output of tools/compare.py"):
        results = up_to_date(json.loads(file.read_text(encoding="utf-8")))
    if unknown := [arm for arm in args.pictures if arm not in results["plan"]["arms"]]:
        raise UserError(f"{args.comparison} has no arm '{unknown[0]}'; it has {', '.join(results['plan']['arms'])}.")
    stem = args.output.with_suffix("")
    photos = write_pictures(results, args.comparison, stem, args.pictures) if args.pictures else []
    for written in write_page(results, args.output, args.title, photos=photos):
        print(written)


def main(arguments: list[str] | None = None) -> None:
    work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
