"""Strips from one latent to another: a generator that has learnt the space of cars changes them smoothly.

    cars.py interpolate output/dcgan --output strips.png --rows 4 --steps 10

A conditional generator keeps the first latent's label along a strip.
"""

import argparse
from pathlib import Path

from .sample import add_run_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="a PNG file")
    parser.add_argument("--rows", type=int, default=4, metavar="N")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="images of a strip")


def run(args: argparse.Namespace) -> None:
    """Draw and write."""
    from car_gan.output_folder import made_folder
    from car_gan.runs.evaluation import write_picture
    from car_gan.runs.pictures import strips
    from car_gan.runs.trained import load_trained
    from gan_plugin.errors import UserError

    if args.rows < 1 or args.steps < 2:
        raise UserError("--rows must be 1 or more, and --steps 2 or more.")
    trained = load_trained(args.run_folder, args.weights, args.opts)
    made_folder(args.output.parent)
    write_picture(args.output, strips(trained, args.rows, args.steps, args.seed))
    print(f"{args.rows} strips of {args.steps} images in {args.output}")
