"""Train COIGAN on a prepared data set, or continue a run.

    inpaint.py train --config-file projects/COIGAN/configs/Base-COIGAN.yaml --data DIR OUTPUT_DIR output/coigan
    inpaint.py train --resume OUTPUT_DIR output/coigan [SOLVER.MAX_ITER N ...]

--resume goes on where the last checkpoint is; without --config-file it takes the config that the run had, also that of
shapes-train. On a CPU with one process the result is that of an unbroken run, bit for bit. Checkpoints, metrics.json,
TensorBoard files and pictures (base, masks, result) go to OUTPUT_DIR.
"""

import argparse

from coigan.commands._arguments import add_run_arguments, options_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_run_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR, with its own config")


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code.

    Raises:
        UserError: config, data or output directory cannot be used.
    """
    from gan_plugin.engine.launch import launch

    return launch(_work, args)


def _work(args: argparse.Namespace) -> None:
    from pathlib import Path

    from coigan.config import load_config
    from coigan.engine.training import train_gan, train_shapes
    from gan_plugin.errors import UserError

    options = options_of(args)
    cfg = load_config(args.config_file, options)
    if args.resume and not args.config_file:
        former = Path(cfg.OUTPUT_DIR) / "config.yaml"
        if not former.is_file():
            raise UserError(f"{cfg.OUTPUT_DIR} holds no config.yaml; name the OUTPUT_DIR of a run.")
        cfg = load_config(str(former), options)
    (train_shapes if cfg.GAME == "shapes" else train_gan)(cfg, args, resume=args.resume)
