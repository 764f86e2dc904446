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
    from car_gan.runs.trained import config_of
    from gan_plugin.errors import UserError
    from gan_plugin.evaluation.image_features import extractor_label

    names = [folder.resolve().name for folder in args.run_folders]
    if len(set(names)) < len(names):
        raise UserError(f"Two runs have the same name ({', '.join(sorted(names))}); rename a folder.")
    tests = [config_of(folder, args.opts).TEST for folder in args.run_folders]
    # with the files in sight, so that Inception's weights are told apart too
    networks = {test.INCEPTION or extractor_label(features=test.FEATURES) for test in tests}
    if len(networks) > 1:
        raise UserError(
            f"The runs would be scored by different networks ({', '.join(sorted(networks))}); add --opts TEST.FEATURES "
            "with one network for all of them, or TEST.INCEPTION with one file."
        )
    arms = [read_arm(folder, args.output, args.opts) for folder in args.run_folders]
    report = args.output / "report.html"
    write_report(arms, report, args.title)
    rows = [[arm.name, arm.scores.FID, arm.scores.IS, arm.scores.KID, arm.scores.recall] for arm in arms]
    print(tabulate(rows, headers=["run", "FID", "IS", "KID", "recall"], floatfmt=".4g", tablefmt="github"))
    print(f"Features: {arms[0].scores.extractor}; report: {report}")
