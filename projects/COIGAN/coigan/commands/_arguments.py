"""Arguments and steps that several verbs share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from _command_line import add_process_arguments

from coigan.choices import FORMATS

if TYPE_CHECKING:
    from coigan.inference import Inpainter


def size(text: str) -> tuple[int, int]:
    """(height, width) of HxW, for argparse."""
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, such as 256x1600") from error
    return height, width


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """How a data set of another program is read."""
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of DATA, if it cannot be told")
    parser.add_argument("--images", default="", metavar="DIR", help="COCO: the pictures, if not beside the JSON")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """--config-file, --data, processes, and KEY VALUE pairs."""
    parser.add_argument("--config-file", default="", metavar="FILE", help="YAML, such as configs/Base-COIGAN.yaml")
    parser.add_argument("--data", default="", metavar="DIR", help="the prepared data set (DATA.ROOT)")
    add_process_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """The trained generator, and where it runs."""
    parser.add_argument("weights", metavar="WEIGHTS", help="model_*.pth of a run, or what inpaint.py export wrote")
    parser.add_argument("--config-file", default="", metavar="FILE", help="the run's config.yaml if it lies elsewhere")
    parser.add_argument("--last", action="store_true", help="the last weights in place of their moving average")
    parser.add_argument("--device", default="", metavar="NAME", help="such as cpu; default: a GPU if there is one")


def add_scores_arguments(parser: argparse.ArgumentParser) -> None:
    """The feature network of the scores."""
    parser.add_argument("--inception", default="", metavar="FILE", help="torch-fidelity's Inception weights")
    about = "without them: EfficientNet-Lite0, random convolutions, or the first if it is installed (default)"
    parser.add_argument("--features", choices=("auto", "lite0", "random"), default="auto", help=about)


def open_inpainter(args: argparse.Namespace) -> "Inpainter":
    """The generator that `add_weights_arguments` describes.

    Raises:
        UserError: the weights or their config cannot be used.
    """
    from coigan.data.samples import noise_of
    from coigan.inference import Inpainter, read_trained

    trained = read_trained(args.weights, args.config_file, average=not args.last)
    return Inpainter(trained, noise_of(trained.cfg), args.device)


def options_of(args: argparse.Namespace) -> list[str]:
    """The KEY VALUE pairs of the command line, with those that have a flag."""
    return [*args.opts, *(["DATA.ROOT", str(Path(args.data))] if args.data else [])]


def add_sets_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The real sets, and the synthetic ones that are compared."""
    parser.add_argument("--train", required=required, metavar="JSON", help="COCO JSON of the real training images")
    parser.add_argument("--test", required=required, metavar="JSON", help="COCO JSON of the real test images")
    parser.add_argument("--extra", nargs="+", default=[], metavar="NAME=JSON", help="synthetic images, an arm each")
