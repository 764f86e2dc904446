"""Prepare a data set in Severstal's format for training: fair split, tiles, objects.

    inpaint.py prepare SOURCE OUT [--tile 256] [--train-share 0.5]

SOURCE holds train_images/ and train.csv, as Kaggle packs them or as inpaint.py toy writes them.
"""

import argparse

from coigan.data.prepare import PrepareOptions, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--tile", type=int, default=256, metavar="PIXELS")
    parser.add_argument("--train-share", type=float, default=0.5, metavar="F")
    parser.add_argument("--seed", type=int, default=42, metavar="S", help="of the split")
    parser.add_argument("--least-area", type=int, default=16, metavar="PIXELS", help="of an object")


def run(args: argparse.Namespace) -> None:
    """Prepare, print the counts.

    Raises:
        UserError: see `prepare`.
    """
    options = PrepareOptions(args.tile, args.train_share, args.seed, args.least_area)
    content = prepare(args.source, args.out, options)
    print(f"{args.out}: tiles {content['tiles']}, objects by class {content['objects']}")
    print(f"share of each class in the training part: {content['share_in_train']}")
