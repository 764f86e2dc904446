"""Train the generator of masks (SHAPES.SOURCE masks) or of base tiles (base) on a prepared data set.

    inpaint.py shapes-train --data DIR OUTPUT_DIR output/shapes0 SHAPES.CLASS 0

When it is done, --bank N draws N masks of the class with the trained generator and leaves them in OUTPUT_DIR/bank, in
the format of an object data set; train with DATA.SHAPE_SOURCE generated and DATA.SHAPE_BANKS to ask for them.
"""

import argparse

from coigan.commands._arguments import add_run_arguments, options_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--bank", type=int, default=0, metavar="N", help="masks to draw at the end")


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code.

    Raises:
        UserError: config, data or output directory cannot be used.
    """
    from gan_plugin.engine.launch import launch

    return launch(_work, args)


def _work(args: argparse.Namespace) -> None:
    from coigan.config import load_config
    from coigan.engine.training import train_shapes

    train_shapes(load_config(args.config_file, ["GAME", "shapes", *options_of(args)]), args, resume=args.resume)
