"""Train COIGAN on a prepared data set.

    inpaint.py train --config-file projects/COIGAN/configs/Base-COIGAN.yaml --data DIR OUTPUT_DIR output/coigan

Checkpoints, metrics.json, TensorBoard files and pictures (base, masks, result) go to OUTPUT_DIR.
"""

import argparse

from ._arguments import add_run_arguments, options_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code.

    Raises:
        UserError: config, data or output directory cannot be used.
    """
    from gan_plugin.engine.launch import launch

    return launch(_work, args)


def _work(args: argparse.Namespace) -> None:
    from coigan.config import load_config
    from coigan.engine.run import train_gan

    train_gan(load_config(args.config_file, options_of(args)), args, resume=args.resume)
