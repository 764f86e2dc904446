#!/usr/bin/env python
"""Turn a comparison into a page of Markdown with tables and bar charts.

    python tools/results_page.py DIR --output docs/results/NAME.md --title "What was compared"

DIR is the --output of tools/compare.py. The page and its figures hold nothing but what DIR/results.json holds.
"""

import argparse
import json
import sys
from pathlib import Path

from gan_plugin.comparison.page import write_page
from gan_plugin.comparison.results import RESULTS
from gan_plugin.errors import UserError, run_command_line


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path, metavar="DIR", help="the --output of tools/compare.py")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.md", help="the page; its folder must exist")
    parser.add_argument("--title", required=True, help="the page's heading")
    args = parser.parse_args(arguments)
    file = args.comparison / RESULTS
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); name the --output of tools/compare.py.") from error
    for written in write_page(results, args.output, args.title):
        print(written)
    return 0


if __name__ == "__main__":
    sys.exit(run_command_line(main))
