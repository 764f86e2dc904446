"""Write a changed copy of a data set: without empty images, of another size, with larger masks.

    inpaint.py derive output/steel/train output/defective --with-objects
    inpaint.py derive concrete/ output/concrete --size 256x256
    inpaint.py derive instances.json output/quarter --images pictures/ --scale 0.25
    inpaint.py derive instances.json output/thick --dilate 3 --kernel 2

DATA is anything that prepare or inspect takes. OUT gets the pictures and annotations.json, a COCO JSON, which prepare
and Detectron2 read; and the records of a line set, which inspect reads.
"""

import argparse
import tempfile
from pathlib import Path

from coigan.commands._arguments import add_source_arguments, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("out", metavar="OUT", help="the folder to make")
    add_source_arguments(parser)
    parser.add_argument("--with-objects", action="store_true", help="leave images without any object out")
    meaning = "of the copy in pixels; pictures by the mean of the area, masks by the nearest pixel"
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=size, metavar="HxW", help=meaning)
    sizes.add_argument("--scale", type=float, metavar="F", help="the same for each image's own size times F")
    parser.add_argument("--dilate", type=int, default=0, metavar="N", help="make the masks larger, so many times")
    parser.add_argument("--kernel", type=int, default=2, metavar="PIXELS", help="side of the square for it")
    parser.add_argument("--workers", type=int, default=-1, metavar="N", help="processes; -1 for one a core")


def run(args: argparse.Namespace) -> None:
    """Write the copy, print the counts.

    Raises:
        UserError: see `open_any` and `derive`.
    """
    from coigan.data.convert import Changes, derive, open_any

    changes = Changes(args.with_objects, args.size or args.scale, args.kernel, args.dilate)
    with tempfile.TemporaryDirectory() as scratch:
        lines = open_any(args.data, Path(scratch), args.format, args.images, args.workers)
        counts = derive(lines, args.out, changes, args.workers)
    print(f"{args.out}: {counts['images']} images with {counts['objects']} objects, {counts['left_out']} left out")
    if counts["vanished"]:
        print(f"{counts['vanished']} objects have no pixel at this size and are lost")
