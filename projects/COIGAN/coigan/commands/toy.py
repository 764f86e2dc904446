"""Write a toy set of steel sheets with defects in the format of Kaggle's Severstal set."""

import argparse

from coigan.toy import write_toy_steel
from gan_plugin.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("out", metavar="OUT", help="the folder to make, with train_images/ and train.csv")
    parser.add_argument("--count", type=int, default=120, metavar="N", help="sheets (default: 120)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--size", default="256x1600", metavar="HxW", help="of each sheet in pixels")


def run(args: argparse.Namespace) -> None:
    """Write the set.

    Raises:
        UserError: see `write_toy_steel`; or --size is no size.
    """
    try:
        height, width = (int(side) for side in args.size.lower().split("x"))
    except ValueError as error:
        raise UserError(f"--size is {args.size!r}; write it as HEIGHTxWIDTH, such as 256x1600.") from error
    written = write_toy_steel(args.out, args.count, args.seed, (height, width))
    state = "written to" if written else "were already in"
    print(f"{args.count} sheets {state} {args.out}; continue with inpaint.py prepare.")
