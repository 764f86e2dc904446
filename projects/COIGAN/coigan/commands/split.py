"""Split a line set (such as OUT/converted of inpaint.py prepare) into parts with the same share of every class.

    inpaint.py split output/steel/converted output/split train=0.7 val=0.1 test=0.2 [--mode exact]

The parts are line sets that share the pictures of the whole; params.json says how well they match.
"""

import argparse
import os
from pathlib import Path

from coigan.choices import SPLITS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", metavar="SET", help="folder with dataset.jsonl")
    parser.add_argument("out", metavar="OUT", help="the folder to make")
    parser.add_argument("ratios", nargs="+", metavar="NAME=SHARE", help="normalised to a sum of 1")
    parser.add_argument("--mode", choices=SPLITS, default="exact")
    parser.add_argument("--seed", type=int, default=42, metavar="S")


def run(args: argparse.Namespace) -> None:
    """Split, print the errors.

    Raises:
        UserError: the set or a ratio cannot be used, or OUT holds files.
    """
    from coigan.data.line_sets import LineSet
    from coigan.data.prepare import write_split
    from gan_plugin.errors import UserError

    ratios = {}
    for text in args.ratios:
        name, _, share = text.partition("=")
        try:
            ratios[name] = float(share)
        except ValueError as error:
            raise UserError(f"{text!r} is no NAME=SHARE; write it like train=0.7.") from error
        if not name or Path(name).name != name:
            raise UserError(f"{name!r} is no name of a folder; write it like train=0.7.")
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds files; name another folder.")
    lines = LineSet(args.data)
    images = os.path.relpath(lines.images.resolve(), (out / "part").resolve())
    report = write_split(lines, out, ratios, args.mode, args.seed, images)
    for name, part in report["parts"].items():
        errors = ", ".join("none" if error is None else f"{error:+.2f}" for error in part["error_points"])
        print(f"{name}: {part['images']} images, objects {part['objects']}, errors in points {errors}")
    print(f"largest error: {report['largest_error_points']:.2f} points")
