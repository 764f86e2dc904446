"""Train a GAN on a folder of crops.

    cars.py train --config-file projects/CarGAN/configs/dcgan.yaml DATASETS.CROPS crops OUTPUT_DIR output/dcgan
    cars.py train --config-file ... --num-gpus 4 ...

KEY VALUE pairs at the end change options; car_gan/config.py has them all. On a machine without a GPU the CPU is used.
"""

import argparse

from _command_line import add_process_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--config-file", default="", metavar="FILE", help="a preset; default: dcgan")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    add_process_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options that go over the file's")


def run(args: argparse.Namespace) -> int:
    """Train in all processes; returns the exit code."""
    from gan_plugin.engine.launch import launch

    return launch(_train, args)


def _train(args: argparse.Namespace) -> None:
    from car_gan.config import load_config
    from car_gan.runs.training import train

    train(load_config(args.config_file, args.opts), resume=args.resume)
