"""Continue a run where its last checkpoint is, with the config that it had.

    inpaint.py resume OUTPUT_DIR [SOLVER.MAX_ITER N ...]

On a CPU with one process the result is that of an unbroken run, bit for bit.
"""

import argparse
from pathlib import Path

from _command_line import add_process_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="OUTPUT_DIR", help="of the run")
    add_process_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")


def run(args: argparse.Namespace) -> int:
    """Continue; returns the exit code.

    Raises:
        UserError: the folder holds no run.
    """
    from gan_plugin.engine.launch import launch
    from gan_plugin.errors import UserError

    if not (Path(args.folder) / "config.yaml").is_file():
        raise UserError(f"{args.folder} holds no config.yaml; name the OUTPUT_DIR of a run.")
    return launch(_work, args)


def _work(args: argparse.Namespace) -> None:
    from coigan.config import load_config
    from coigan.engine.run import train_gan, train_shapes

    cfg = load_config(str(Path(args.folder) / "config.yaml"), ["OUTPUT_DIR", args.folder, *args.opts])
    work = train_shapes if cfg.GAME == "shapes" else train_gan
    work(cfg, args, resume=True)
