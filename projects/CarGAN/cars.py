#!/usr/bin/env python
"""Cars from street scenes, GANs that learn to draw them, and new cars back into training scenes.

    python projects/CarGAN/cars.py VERB --help

Exit code 2: the input is wrong, and a sentence says what to do.
"""

import argparse
import sys
from importlib import import_module

from gan_plugin.errors import run_command_line
from gan_plugin.signals import Stopped

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


def main(arguments: list[str] | None = None) -> int | None:
    """Hand the command line to the module of its verb; returns the exit code, None for 0."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    overview = argparse.ArgumentParser(
        prog="cars.py",
        description=__doc__,
        epilog="verbs:\n" + "\n".join(f"  {verb:12} {_SUMMARIES[verb]}" for verb in VERBS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("verb", choices=VERBS, metavar="VERB", help="see below")
    verb = overview.parse_args(given[:1]).verb
    module = import_module(VERBS[verb])
    parser = argparse.ArgumentParser(
        prog=f"cars.py {verb}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    module.add_arguments(parser)
    try:
        # KEY VALUE pairs may follow options that follow RUN, which parse_args would not take
        return module.run(parser.parse_intermixed_args(given[1:]))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code


if __name__ == "__main__":
    sys.exit(run_command_line(main))
