"""Write a synthetic data set: images with painted defects, and their masks as COCO JSON.

    inpaint.py augment output/coigan/model_final.pth --out output/augmented --count 5000
    inpaint.py augment output/coigan/model_final.pth --out output/copies --count 5000 --method copy_paste

The methods copy_paste and poisson are baselines: the same base images, places and masks, with the real objects' pixels;
of WEIGHTS they take the config only. Detectron2 reads the result by
register_coco_instances("augmented", {}, "OUT/annotations.json", "OUT/images").
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coigan.choices import BASELINES

from ._arguments import add_weights_arguments, open_inpainter

if TYPE_CHECKING:
    from coigan.augmentation import Paint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_weights_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="images")
    parser.add_argument("--data", default="", metavar="DIR", help="the prepared data set; default: the run's")
    parser.add_argument("--bases", default="", metavar="DIR", help="other images to paint on, all of the tiles' size")
    parser.add_argument("--method", choices=("gan", *BASELINES), default="gan")
    parser.add_argument(
        "--counts",
        nargs="+",
        type=float,
        default=[0.1, 0.4, 0.4, 0.1],
        metavar="P",
        help="probabilities of 0, 1, 2, ... objects of a class",
    )
    parser.add_argument("--with-real", action="store_true", help="copy the annotated training tiles as well")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--strength", type=float, default=1.0, metavar="F", help="0 nothing, 1 all (default), up to 2")
    parser.add_argument("--margin", type=int, metavar="PIXELS", help="keep the image further from the masks; -1 never")


def run(args: argparse.Namespace) -> None:
    """Write the set.

    Raises:
        UserError: weights, data or an argument cannot be used.
    """
    from coigan.augmentation import BASELINES as METHODS
    from coigan.augmentation import Source, write_augmented
    from coigan.data.images import images_in
    from coigan.data.line_sets import LineSet
    from coigan.data.objects import ObjectStore
    from coigan.data.placer import Placer
    from coigan.engine.data import augmentation_of, open_root
    from coigan.inference.weights import read_trained
    from gan_plugin.errors import UserError

    if min(args.counts) < 0 or sum(args.counts) <= 0:
        raise UserError("--counts are probabilities: 0 or more each, not all 0.")
    trained = read_trained(args.weights, args.config_file, average=not args.last)
    prepared = open_root(trained.cfg, args.data)
    if prepared.classes != trained.classes:
        raise UserError(f"{prepared.root} has the classes {prepared.classes}, but the weights {trained.classes}.")
    stores = [ObjectStore(prepared.objects(number)) for number in range(len(prepared.classes))]
    placer = Placer(stores, prepared.tile, args.counts, augmentation_of(trained.cfg), trained.cfg.DATA.OVERLAP)
    bases = images_in(args.bases) if args.bases else prepared.tiles("base")
    provenance = {"method": args.method, "set_seed": args.seed}
    if args.method == "gan":
        provenance |= {"weights_sha256": trained.digest, "strength": args.strength, "margin": args.margin}
    paint = _by_generator(args) if args.method == "gan" else METHODS[args.method]
    source = Source(bases, placer, prepared.classes)
    real = LineSet(prepared.root / "train") if args.with_real else None
    path = write_augmented(args.out, source, paint, args.count, args.seed, provenance, real)
    print(f"{args.count} images by {args.method}: {path}; pictures in {Path(args.out) / 'images'}")


def _by_generator(args: argparse.Namespace) -> "Paint":
    import numpy as np

    from coigan.data.placer import Placement

    inpainter = open_inpainter(args)

    def paint(image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
        return inpainter.paint(image, placement.masks, seed, args.strength, args.margin)

    return paint
