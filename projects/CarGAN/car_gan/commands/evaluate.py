"""Score a trained GAN, and look for memorised crops.

    cars.py evaluate output/dcgan --output scores TEST.INCEPTION weights-inception-2015-12-05-6726825d.pth

Without TEST.INCEPTION the scores are by TEST.FEATURES: EfficientNet-Lite0 where it is installed, or random
convolutions; they compare with nothing but themselves. The second scores are of the cars keyed and put on
TEST.BACKGROUND, since the flat key colour distorts the first. Writes scores.json, scores_on_ground.json,
memorisation.json, neighbours.png (samples above the training crops nearest to them) and on_ground.png (crops above
samples, as the second scores see them).
"""

import argparse
from pathlib import Path

from .sample import add_run_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--truncation", type=float, default=0.0, metavar="T", help="of the latents; 0: none")


def run(args: argparse.Namespace) -> None:
    """Evaluate and print."""
    from tabulate import tabulate

    from car_gan.runs.evaluation import evaluate_trained
    from car_gan.runs.trained import load_trained

    trained = load_trained(args.run_folder, args.weights, [*args.opts, "TEST.SEED", str(args.seed + 1)])
    found = evaluate_trained(trained, args.output, truncation=args.truncation)
    for scores in filter(None, (found.scores, found.on_ground)):
        numbers = scores.results()[scores.label]
        print(tabulate(list(numbers.items()), headers=["score", "value"], floatfmt=".4g", tablefmt="github"))
        print(
            f"Features: {scores.extractor}; {scores.real_count} real and {scores.fake_count} generated images; weights "
            f"{trained.weights}."
        )
    print(found.check.sentence())
