"""The source of scenes that a command line names."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from car_gan.colour import Colour

    from .scene import SceneSource


def add_scene_arguments(parser: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    """One of the kinds of street scenes, required."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--cityscapes", metavar="DIR", help="holds leftImg8bit and gtFine, or cityscapes/ with both")
    group.add_argument("--coco", nargs=2, metavar=("JSON", "IMAGES"), help="a COCO file of instances and its images")
    return group


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """One of the kinds of street scenes or of pictures of single cars, required."""
    group = add_scene_arguments(parser)
    group.add_argument("--crops", metavar="DIR", help="a folder of pictures that show one car each")
    group.add_argument("--stanford", metavar="DIR", help="Stanford Cars: cars_train, cars_test, devkit")


def chosen_scenes(args: argparse.Namespace, splits: Sequence[str], skip_broken: bool | None = None) -> "SceneSource":
    """The street scenes that `args` name.

    Args:
        args: with what `add_scene_arguments` adds.
        splits: of Cityscapes.
        skip_broken: whether broken annotations are left out; None if there is no such choice.

    Raises:
        UserError: they are missing or broken.
    """
    from .cityscapes import Cityscapes
    from .coco import Coco

    on_bad, option = "skip" if skip_broken else "stop", "" if skip_broken is None else "SKIP_BROKEN True"
    if args.cityscapes:
        return Cityscapes(args.cityscapes, splits, on_bad, option)
    json_file, images = args.coco
    return Coco(json_file, images, on_bad, option)


def chosen_pictures(
    args: argparse.Namespace, splits: Sequence[str], label: str, key: "Colour", skip_broken: bool
) -> "SceneSource":
    """The street scenes or pictures of single cars that `args` name.

    Args:
        args: with what `add_picture_arguments` adds.
        splits: of Cityscapes.
        label, key: of a folder of crops, see `CropFolder`.
        skip_broken: see `chosen_scenes`.

    Raises:
        UserError: they are missing or broken.
    """
    from .pictures import CropFolder, StanfordCars

    if args.crops:
        return CropFolder(args.crops, label, key)
    return StanfordCars(args.stanford) if args.stanford else chosen_scenes(args, splits, skip_broken)
