#!/usr/bin/env python
"""Cars from street scenes, GANs that learn to draw them, and new cars back into training scenes.

    python projects/CarGAN/cars.py VERB --help

Exit code 2: the input is wrong, and a sentence says what to do.
"""

import sys
from functools import partial
from pathlib import Path

# so that the tool runs from a checkout, wherever it is called
sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2] / "tools")]

from _command_line import run_command_line  # noqa: E402
from _verbs import parse_verb, run_verb  # noqa: E402
from car_gan.commands import VERBS

parse = partial(parse_verb, __doc__, "cars.py", VERBS)


def main(arguments: list[str] | None = None) -> int | None:
    return run_verb(parse(arguments))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, run_verb))
