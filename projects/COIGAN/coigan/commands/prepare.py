"""Prepare a data set for training: fair split, objects, tiles, reports.

    inpaint.py prepare toy OUT --toy-count 120
    inpaint.py prepare severstal.zip OUT --tile 256 --train-share 0.5
    inpaint.py prepare instances.json OUT --images pictures/ --classes crack spalling
    inpaint.py prepare output/steel OUT --parts train=0.7 val=0.1 test=0.2
    inpaint.py prepare magnetic_tiles/ OUT --tile 64 --group '_num_(\\d+)' --group-within 200

SOURCE is a folder or zip in Severstal's format (train_images/, train.csv), a folder with images/ and masks/ (or
masks/<class>/), folders of pictures by class with their masks beside them, one with Cityscapes, a COCO JSON, "toy" for
made-up steel, or "kaggle" for a download by Kaggle's command line. Stages whose results are there and whole are kept;
--force names some to do again.
--parts writes nothing but a split, also of what has been prepared: a line set for each part.
What shows the same part, sheet or day belongs into one --group.
"""

import argparse
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from coigan.choices import ENCODINGS, FORMATS, SPLITS, STAGES
from coigan.commands._arguments import size

if TYPE_CHECKING:
    from coigan.data.prepare import PrepareOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--force", nargs="+", default=[], metavar="STAGE", help=f"of {', '.join(STAGES)}")
    shares = "split only, into these parts; normalised to a sum of 1"
    parser.add_argument("--parts", nargs="+", default=[], metavar="NAME=SHARE", help=shares)
    # the rest are the fields of PrepareOptions, which has the defaults
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("--format", choices=FORMATS, help="of SOURCE, if it cannot be told")
    parser.add_argument("--images", metavar="DIR", help="COCO: the pictures, if not beside the JSON")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="those to keep, in that order")
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="side of the square tiles")
    parser.add_argument("--train-share", type=float, metavar="F", help="of the images")
    parser.add_argument("--split", dest="split_mode", choices=SPLITS, help="how images are split")
    group = "images whose paths share what it matches (its parentheses, if any) stay in one part; or a CSV: image,group"
    parser.add_argument("--group", metavar="REGEX|CSV", help=group)
    near = "--group gives numbers: neighbours that differ by no more are one group"
    parser.add_argument("--group-within", type=int, metavar="N", help=near)
    parser.add_argument("--seed", type=int, metavar="S", help="of the split")
    parser.add_argument("--least-area", type=int, metavar="PIXELS", help="of a cut-out")
    parser.add_argument("--black", type=int, metavar="GREY", help="what is darker is black")
    parser.add_argument("--most-black", type=float, metavar="F", help="share of a tile")
    parser.add_argument("--encoding", choices=ENCODINGS, help="exact run lengths, or polygons with holes")
    parser.add_argument("--keep-every", type=int, metavar="K", help="of a polygon's points; 1 is exact")
    parser.add_argument("--workers", type=int, metavar="N", help="processes; -1 for one a core")
    parser.add_argument("--toy-count", type=int, metavar="N", help="sheets of SOURCE toy")
    parser.add_argument("--toy-seed", type=int, metavar="S")
    parser.add_argument("--toy-size", type=size, metavar="HxW")


def run(args: argparse.Namespace) -> None:
    """Prepare, print the counts.

    Raises:
        UserError: see `prepare`.
    """
    from coigan.data.prepare import PrepareOptions, prepare

    given = {field.name: getattr(args, field.name) for field in fields(PrepareOptions) if field.name in args}
    options = PrepareOptions(**given)
    if args.parts:
        _split_only(args, options)
        return
    content = prepare(args.source, args.out, options, tuple(args.force))
    for name, state in content["stages"].items():
        print(f"{name}: {state}")
    if content["masks"]:
        print("masks: " + "; ".join(f"{count} {words}" for words, count in content["masks"].items()))
    objects = ", ".join(f"{name} {count}" for name, count in zip(content["classes"], content["objects"], strict=True))
    print(f"{args.out}: images {content['images']}, tiles {content['tiles']}, objects {objects}")
    shares = zip(content["classes"], content["share_in_train"], strict=True)
    print("share in the training part: " + ", ".join(f"{name} {share:.1%}" for name, share in shares))
    if content["groups"]:
        print(f"--group: {content['groups']}")
    if torn := content["near_duplicates_in_two_parts"]:
        table = Path(args.out) / "converted/near_duplicates.csv"
        print(
            f"{len(torn)} pairs of images look alike and lie in different parts, such as {torn[0][0]} and "
            f"{torn[0][1]}, so that scores are too good; hold them together by --group, for which {table} may serve"
        )
    if content["left_out_as_too_small"]:
        print(f"{content['left_out_as_too_small']} objects of under {options.least_area} pixels give no cut-out")
    if content["left_out_as_black"]:
        limits = f"--black {options.black} --most-black {options.most_black}"
        print(f"{content['left_out_as_black']} tiles of the training images are too black and were left out ({limits})")


def _split_only(args: argparse.Namespace, options: "PrepareOptions") -> None:
    from coigan.data.convert import open_any
    from coigan.data.images import whole_folder
    from coigan.data.prepare import write_split
    from gan_plugin.errors import UserError, as_user_error

    ratios = {}
    for text in args.parts:
        name, _, share = text.partition("=")
        with as_user_error(f"{text!r} is no NAME=SHARE", "write it like train=0.7", ValueError):
            ratios[name] = float(share)
        if not name or Path(name).name != name:
            raise UserError(f"{name!r} is no name of a folder; write it like train=0.7.")
    with tempfile.TemporaryDirectory() as scratch:
        lines = open_any(args.source, Path(scratch), options.format, options.images, options.workers)
        images = os.path.relpath(lines.images.resolve(), (Path(args.out) / "part").resolve())
        with whole_folder(args.out) as part:
            rule = (options.group, options.group_within)
            report = write_split(lines, part, ratios, options.split_mode, options.seed, images, *rule)
    for name, found in report["parts"].items():
        errors = ", ".join("none" if error is None else f"{error:+.2f}" for error in found["error_points"])
        print(f"{name}: {found['images']} images, objects {found['objects']}, errors in points {errors}")
    print(f"largest error: {report['largest_error_points']:.2f} points")
