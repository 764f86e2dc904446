"""Prepare a data set for training: fair split, objects, tiles, reports.

    inpaint.py prepare toy OUT
    inpaint.py prepare severstal.zip OUT --tile 256 --train-share 0.5
    inpaint.py prepare instances.json OUT --images pictures/ --classes crack spalling

SOURCE is a folder or zip in Severstal's format (train_images/, train.csv), a folder with images/ and masks/, one with
Cityscapes, a COCO JSON, "toy" for made-up steel, or "kaggle" for a download by Kaggle's command line. Stages whose
results are there and whole are kept; --force names some to do again.
"""

import argparse

from coigan.data.prepare import STAGES, PrepareOptions, prepare
from coigan.data.regions import ENCODINGS
from coigan.data.sources import FORMATS
from coigan.data.split import MODES

from ._arguments import size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    default = PrepareOptions()
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--force", nargs="+", default=[], metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--format", choices=FORMATS, default="auto")
    parser.add_argument("--images", default="", metavar="DIR", help="COCO: the pictures, if not beside the JSON")
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="those to keep, in that order")
    parser.add_argument("--tile", type=int, default=default.tile, metavar="PIXELS")
    parser.add_argument("--train-share", type=float, default=default.train_share, metavar="F")
    parser.add_argument("--split", choices=MODES, default="exact", help="how images are split")
    parser.add_argument("--seed", type=int, default=default.seed, metavar="S", help="of the split")
    parser.add_argument("--least-area", type=int, default=default.least_area, metavar="PIXELS", help="of a cut-out")
    parser.add_argument("--black", type=int, default=default.black, metavar="GREY", help="what is darker is black")
    parser.add_argument("--most-black", type=float, default=default.most_black, metavar="F", help="share of a tile")
    parser.add_argument(
        "--encoding", choices=ENCODINGS, default="rle", help="exact run lengths, or polygons with holes"
    )
    parser.add_argument("--keep-every", type=int, default=1, metavar="K", help="of a polygon's points; 1 is exact")
    parser.add_argument("--workers", type=int, default=-1, metavar="N", help="processes; -1 for one a core")
    parser.add_argument("--toy-count", type=int, default=default.toy_count, metavar="N", help="sheets of SOURCE toy")
    parser.add_argument("--toy-seed", type=int, default=default.toy_seed, metavar="S")
    parser.add_argument("--toy-size", type=size, default=default.toy_size, metavar="HxW")


def run(args: argparse.Namespace) -> None:
    """Prepare, print the counts.

    Raises:
        UserError: see `prepare`.
    """
    options = PrepareOptions(
        tile=args.tile,
        train_share=args.train_share,
        seed=args.seed,
        least_area=args.least_area,
        black=args.black,
        most_black=args.most_black,
        format=args.format,
        images=args.images,
        classes=tuple(args.classes),
        encoding=args.encoding,
        keep_every=args.keep_every,
        split_mode=args.split,
        workers=args.workers,
        toy_count=args.toy_count,
        toy_seed=args.toy_seed,
        toy_size=args.toy_size,
    )
    content = prepare(args.source, args.out, options, tuple(args.force))
    for name, state in content["stages"].items():
        print(f"{name}: {state}")
    print(f"{args.out}: tiles {content['tiles']}, objects by class {content['objects']}")
    print(f"share of each class in the training part: {content['share_in_train']}")
    if content["left_out_as_too_small"]:
        print(f"{content['left_out_as_too_small']} objects of under {args.least_area} pixels give no cut-out")
