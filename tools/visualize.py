#!/usr/bin/env python
"""Write one HTML file about a run: its numbers, curves and test images.

    DETECTRON2_DATASETS=datasets python tools/visualize.py OUTPUT_DIR [--out report.html] [--score 0.5]

OUTPUT_DIR is that of the run. The data sets are needed for the images only.
"""

import argparse
import sys
from pathlib import Path

from gan_plugin.errors import UserError, run_command_line
from gan_plugin.visualization.report import write_report


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="the folder of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: OUTPUT_DIR/report.html")
    parser.add_argument("--score", type=float, default=0.5, metavar="S", help="the least score of a mask that is drawn")
    args = parser.parse_args(arguments)
    if not 0 <= args.score <= 1:
        raise UserError(f"--score is {args.score}; set it to a number from 0 to 1.")
    print(write_report(args.output_dir, args.out or args.output_dir / "report.html", score_threshold=args.score))


if __name__ == "__main__":
    sys.exit(run_command_line(main))
