"""Continue a training that was stopped, with the options it was begun with.

    cars.py resume output/dcgan [KEY VALUE ...]

On a CPU the result equals that of an unbroken run bit for bit.
"""

import argparse
from pathlib import Path

from _command_line import add_process_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="OUTPUT_DIR of the training")
    add_process_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options to change, such as SOLVER.MAX_EPOCHS")


def run(args: argparse.Namespace) -> int:
    """Train on in all processes; returns the exit code."""
    from car_gan.runs.training import CONFIG
    from gan_plugin.engine.launch import launch
    from gan_plugin.errors import UserError

    if not (args.run_folder / CONFIG).is_file():
        raise UserError(f"{args.run_folder} holds no {CONFIG}, so there is no training to continue; check the path.")
    return launch(_resume, args)


def _resume(args: argparse.Namespace) -> None:
    from car_gan.config import load_config
    from car_gan.runs.training import CONFIG, train

    cfg = load_config(str(args.run_folder / CONFIG), [*args.opts, "OUTPUT_DIR", str(args.run_folder)])
    train(cfg, resume=True)
