"""Write a toy set of steel sheets with defects in the format of Kaggle's Severstal set."""

import argparse

from ._arguments import size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("out", metavar="OUT", help="the folder to make, with train_images/ and train.csv")
    parser.add_argument("--count", type=int, default=120, metavar="N", help="sheets (default: 120)")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--size", type=size, default=(256, 1600), metavar="HxW", help="of each sheet in pixels")


def run(args: argparse.Namespace) -> None:
    """Write the set.

    Raises:
        UserError: see `write_toy_steel`.
    """
    from coigan.toy import write_toy_steel

    written = write_toy_steel(args.out, args.count, args.seed, args.size)
    state = "written to" if written else "were already in"
    print(f"{args.count} sheets {state} {args.out}; continue with inpaint.py prepare {_source(args.out)} OUT.")


def _source(folder: str) -> str:
    """How prepare takes `folder` for a folder, even if it is called like one of its built-in sources."""
    return folder if "/" in folder else f"./{folder}"
