"""The source of scenes that a command line names."""

import argparse
from collections.abc import Sequence

from .cityscapes import Cityscapes
from .coco import Coco
from .scene import SceneSource


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """One of the kinds of sources, required."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--cityscapes", metavar="DIR", help="holds leftImg8bit and gtFine, or cityscapes/ with both")
    group.add_argument("--coco", nargs=2, metavar=("JSON", "IMAGES"), help="a COCO file of instances and its images")


def chosen_source(args: argparse.Namespace, splits: Sequence[str]) -> SceneSource:
    """The source that `args` name.

    Args:
        args: with what `add_source_arguments` adds.
        splits: of Cityscapes.

    Raises:
        UserError: it is missing or broken.
    """
    if args.cityscapes:
        return Cityscapes(args.cityscapes, splits)
    return Coco(*args.coco)
