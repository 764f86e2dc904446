"""Train a GAN on a folder of crops.

    cars.py train --config-file projects/CarGAN/configs/dcgan.yaml DATASETS.CROPS crops OUTPUT_DIR output/dcgan
    cars.py train --config-file ... --num-gpus 4 ...

KEY VALUE pairs at the end change options; car_gan/config.py has them all. On a machine without a GPU the CPU is used.
"""

import argparse

from car_gan.config import load_config
from car_gan.runs.training import train
from gan_plugin.engine.launch import launch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("--config-file", default="", metavar="FILE", help="a preset; default: dcgan")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    add_process_arguments(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options that go over the file's")


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """How many processes, and where they meet; as in Detectron2's tools."""
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes of this machine")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="of this machine")
    parser.add_argument("--dist-url", default="auto", metavar="URL")


def run(args: argparse.Namespace) -> int:
    """Train in all processes; returns the exit code."""
    return launch(_train, args)


def _train(args: argparse.Namespace) -> None:
    train(load_config(args.config_file, args.opts), resume=args.resume)
