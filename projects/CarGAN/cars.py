#!/usr/bin/env python
"""Cars from street scenes, GANs that learn to draw them, and new cars back into training scenes.

    python projects/CarGAN/cars.py VERB --help

Exit code 2: the input is wrong, and a sentence says what to do.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

# so that the tool runs from a checkout, wherever it is called
sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2] / "tools")]

from _command_line import Parser, run_command_line  # noqa: E402

# verb -> its module, which has add_arguments(parser) and run(args); imported only for the verb that is asked for
VERBS = {
    "build": "car_gan.commands.build",
    "review": "car_gan.commands.review",
    "train": "car_gan.commands.train",
    "resume": "car_gan.commands.resume",
    "sample": "car_gan.commands.sample",
    "evaluate": "car_gan.commands.evaluate",
    "compare": "car_gan.commands.compare",
    "judge": "car_gan.commands.judge",
    "interpolate": "car_gan.commands.interpolate",
    "export": "car_gan.commands.export",
    "compose": "car_gan.commands.compose",
    "ab": "car_gan.commands.ab",
}
_SUMMARIES = {
    "build": "a data set of single cars from street scenes",
    "review": "a page of the crops to look through; takes out what you reject",
    "train": "train a GAN of a preset on the crops",
    "resume": "go on with a training that has stopped",
    "sample": "pictures of new cars",
    "evaluate": "FID, IS and more of a trained GAN",
    "compare": "a table and curves of several trainings",
    "judge": "a page on which a person tells generated cars from crops, and its score",
    "interpolate": "strips from one latent to another",
    "export": "the generator alone, for use elsewhere",
    "compose": "new cars into street scenes, as images and COCO JSON",
    "ab": "the car AP of a Mask R-CNN with and without synthetic cars",
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of the verb, and as `run` what does them."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    verbs = "\n".join(f"  {verb:12} {_SUMMARIES[verb]}" for verb in VERBS)
    overview = Parser(__doc__, prog="cars.py", epilog=f"verbs:\n{verbs}")
    overview.add_argument("verb", choices=VERBS, metavar="VERB", help="see below")
    verb = overview.parse_args(given[:1]).verb
    module = import_module(VERBS[verb])
    parser = Parser(module.__doc__, prog=f"cars.py {verb}")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    # KEY VALUE pairs may follow options that follow RUN, which parse_args would not take
    return parser.parse_intermixed_args(given[1:])


def work(args: argparse.Namespace) -> int | None:
    """Do the verb; returns the exit code, None for 0."""
    return args.run(args)


def main(arguments: list[str] | None = None) -> int | None:
    return work(parse(arguments))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
