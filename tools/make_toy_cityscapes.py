#!/usr/bin/env python
"""Write a toy data set of street scenes in Cityscapes' layout.

    python tools/make_toy_cityscapes.py OUT --train 60 --val 20 --seed 0 --size 512x256

Then DETECTRON2_DATASETS=OUT makes Detectron2's cityscapes_fine_instance_seg_{train,val} find it.
"""

import argparse
import sys
from functools import partial

from _command_line import Parser, run_command_line, width_x_height


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("out", metavar="OUT", help="the folder that will be DETECTRON2_DATASETS")
    parser.add_argument("--train", type=int, default=60, metavar="N", help="pictures to train on")
    parser.add_argument("--val", type=int, default=20, metavar="M", help="pictures to evaluate on")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--size", type=width_x_height, default=(512, 256), metavar="WxH", help="of each, in pixels")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """Write the set, unless it is there, and say so."""
    from gan_plugin.data.toy_cityscapes import write_toy_cityscapes

    written = write_toy_cityscapes(args.out, args.train, args.val, args.seed, args.size)
    state = "written" if written else "already there"
    print(f"{args.train} + {args.val} pictures {state} in {args.out}; use them with DETECTRON2_DATASETS={args.out}")


def main(arguments: list[str] | None = None) -> None:
    work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
