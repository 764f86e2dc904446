"""A page of the crops to look through, and what you reject there out of the data set.

cars.py review OUT                          writes OUT/review.html
cars.py review OUT --reject rejected.txt    takes the crops that the page has listed out of OUT/manifest.jsonl
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("folder", type=Path, metavar="OUT", help="the --output of cars.py build")
    parser.add_argument("--reject", type=Path, metavar="FILE", help="the list that the page saves")
    parser.add_argument("--most", type=int, default=600, metavar="N", help="crops on the page")


def run(args: argparse.Namespace) -> None:
    """Take out what is rejected, and write the page."""
    from car_gan.data.review import apply_rejections, write_review
    from gan_plugin.errors import UserError

    if args.most < 1:
        raise UserError(f"--most is {args.most}; set it to 1 or more.")
    if args.reject:
        print(f"{apply_rejections(args.folder, args.reject)} crops taken out of {args.folder}")
    print(write_review(args.folder, args.most))
