"""Cut single cars out of annotated scenes.

    cars.py build --cityscapes DIR --output OUT
    cars.py build --coco instances.json IMAGES --output OUT CATEGORY truck
    cars.py build --stanford DIR --output OUT MODE context BOX truth DETECTOR.CONFIG ""
    cars.py build --cityscapes DIR --output OUT --config-file projects/CarGAN/configs/build_clean.yaml

OUT gets crops/*.png, manifest.jsonl (where each comes from), dropped.jsonl (why others are not there), funnel.json,
scores.json (what the detector said; DETECTOR.RECORDED takes it) and review.html. The same command again continues.
KEY VALUE pairs at the end change options; car_gan/data/config.py has them all.
"""

import argparse
import logging
from pathlib import Path

from car_gan.scenes.choose import add_picture_arguments, chosen_pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_picture_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of this build alone")
    parser.add_argument("--config-file", default="", metavar="FILE", help="options; default: the source document's")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes; default: this one")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options that go over the file's")


def run(args: argparse.Namespace) -> None:
    """Build, print the funnel, write the review page."""
    from car_gan.colour import checked_colour
    from car_gan.data.build import build
    from car_gan.data.config import build_defaults
    from car_gan.data.review import write_review
    from gan_plugin.engine.setup import merge_options

    cfg = build_defaults()
    merge_options(cfg, args.config_file, args.opts)
    source = chosen_pictures(args, cfg.SPLITS, cfg.CATEGORY, checked_colour(cfg.KEY), cfg.SKIP_BROKEN)
    funnel = build(source, cfg, args.output, workers=args.workers)
    for split, count in funnel.empty.items():
        if split == "test":
            logging.getLogger("car_gan").warning(
                "%d images of the test split have no car: its public annotation is a dummy.", count
            )
    print(funnel.table())
    print(f"{funnel.kept} crops in {args.output}; look through them: {write_review(args.output)}")
