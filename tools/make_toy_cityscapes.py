#!/usr/bin/env python
"""Write a toy data set of street scenes in Cityscapes' layout.

    python tools/make_toy_cityscapes.py OUT --train 60 --val 20 --seed 0 --size 512x256

Then DETECTRON2_DATASETS=OUT makes Detectron2's cityscapes_fine_instance_seg_{train,val} find it.
"""

import argparse
import sys

from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.errors import UserError, run_command_line


def parse_size(text: str) -> tuple[int, int]:
    """ "512x256" -> (512, 256).

    Raises:
        UserError: `text` is not of that form.
    """
    try:
        width, height = text.lower().split("x")
        return int(width), int(height)
    except ValueError as error:
        raise UserError(f"--size is {text!r}; write it as WIDTHxHEIGHT, such as 512x256.") from error


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", metavar="OUT", help="the folder that will be DETECTRON2_DATASETS")
    parser.add_argument("--train", type=int, default=60, metavar="N", help="pictures to train on")
    parser.add_argument("--val", type=int, default=20, metavar="M", help="pictures to evaluate on")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--size", default="512x256", metavar="WxH", help="of each picture in pixels")
    args = parser.parse_args(arguments)
    written = write_toy_cityscapes(args.out, args.train, args.val, args.seed, parse_size(args.size))
    state = "written" if written else "already there"
    print(f"{args.train} + {args.val} pictures {state} in {args.out}; use them with DETECTRON2_DATASETS={args.out}")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
