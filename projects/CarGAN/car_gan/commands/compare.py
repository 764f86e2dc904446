"""A page on several trainings: scores by one protocol, curves, samples, nearest crops, attention.

    cars.py compare output/dcgan output/logan --output comparison --opts TEST.INCEPTION weights-inception.pth

Writes report.html (one file, with all pictures), and what `cars.py evaluate` writes in a folder for every run.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("run_folders", nargs="+", type=Path, metavar="RUN", help="OUTPUT_DIR of a training")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--title", default="Cars: a comparison of GANs")
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE", help="the same for all runs")


def run(args: argparse.Namespace) -> None:
    """Score, draw, print."""
    from tabulate import tabulate

    from car_gan.runs.report import read_arm, write_report
    from gan_plugin.errors import UserError

    names = [folder.resolve().name for folder in args.run_folders]
    if len(set(names)) < len(names):
        raise UserError(f"Two runs have the same name ({', '.join(sorted(names))}); rename a folder.")
    arms = [read_arm(folder, args.output, args.opts) for folder in args.run_folders]
    extractors = {arm.scores.extractor for arm in arms}
    if len(extractors) > 1:
        raise UserError(
            f"The runs were scored by different networks ({', '.join(sorted(extractors))}); add --opts TEST.FEATURES "
            "with one network for all of them, or TEST.INCEPTION with one file."
        )
    report = args.output / "report.html"
    write_report(arms, report, args.title)
    rows = [[arm.name, arm.scores.FID, arm.scores.IS, arm.scores.KID, arm.scores.recall] for arm in arms]
    print(tabulate(rows, headers=["run", "FID", "IS", "KID", "recall"], floatfmt=".4g", tablefmt="github"))
    print(f"Features: {extractors.pop()}; report: {report}")
