#!/usr/bin/env python
"""Cars from street scenes, GANs that learn to draw them, and new cars back into training scenes.

    python projects/CarGAN/cars.py VERB --help

Exit code 2: the input is wrong, and a sentence says what to do.
"""

import argparse
import sys
from pathlib import Path

# so that the tool runs from a checkout, wherever it is called
sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2] / "tools")]

from _command_line import Parser, run_command_line  # noqa: E402
from car_gan.commands import VERBS


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of the verb, and as `run` what does them."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    verbs = "\n".join(f"  {name:12} {verb.summary}" for name, verb in VERBS.items())
    overview = Parser(__doc__, prog="cars.py", epilog=f"verbs:\n{verbs}")
    overview.add_argument("verb", choices=VERBS, metavar="VERB", help="see below")
    name = overview.parse_args(given[:1]).verb
    # KEY VALUE pairs may follow options that follow RUN, which parse_args would not take
    return VERBS[name].parser(name).parse_intermixed_args(given[1:])


def work(args: argparse.Namespace) -> int | None:
    """Do the verb; returns the exit code, None for 0."""
    return args.run(args)


def main(arguments: list[str] | None = None) -> int | None:
    return work(parse(arguments))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
