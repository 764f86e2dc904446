"""Write a synthetic data set: images with painted defects, and their masks as COCO JSON.

    inpaint.py augment output/coigan/model_final.pth --out output/augmented --count 5000
    inpaint.py augment output/coigan/model_final.pth --out output/cracks --count crack=100 dent=20 --clean 0.3
    inpaint.py augment output/coigan/model_final.pth --out output/copies --count 5000 --method copy_paste

Each picture follows one of the training tiles: how many objects of which classes and sizes it has, and how many have
none. --count CLASS=N makes as many pictures as hold so many objects, of these classes alone, and none without objects;
--clean SHARE chooses how many of all have none. --counts draws the numbers of objects instead.

The methods copy_paste and poisson are baselines: the same base images, places and masks, with the real objects' pixels;
of WEIGHTS they take the config only. A label is invisible if its pixels have changed by less than the noise of the base
image; --visible leaves such labels out, and pictures that have no other. Detectron2 reads the result by
register_coco_instances("augmented", {}, "OUT/annotations.json", "OUT/images").
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from coigan.choices import BASELINES
from coigan.commands._arguments import add_weights_arguments, open_inpainter

if TYPE_CHECKING:
    from coigan.augmentation import Paint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_weights_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    number = "images; or for each CLASS the number of its objects"
    parser.add_argument("--count", nargs="+", required=True, metavar="N|CLASS=N", help=number)
    share = "of the images that get no object; default: as in the training tiles, and 0 with CLASS=N or --counts"
    parser.add_argument("--clean", type=float, metavar="SHARE", help=share)
    parser.add_argument("--data", default="", metavar="DIR", help="the prepared data set; default: the run's")
    parser.add_argument("--bases", default="", metavar="DIR", help="other images to paint on, of any size")
    banks = (
        "banks of masks, one for each class in their order (shapes-train --bank); default: those of DATA.SHAPE_SOURCE"
    )
    parser.add_argument("--shapes", nargs="+", default=[], metavar="DIR", help=banks)
    parser.add_argument("--method", choices=("gan", *BASELINES), default="gan")
    parser.add_argument(
        "--counts",
        nargs="+",
        type=float,
        metavar="P",
        help="probabilities of 0, 1, 2, ... objects of a class",
    )
    unseen = "leave out labels whose pixels have changed by less than the noise"
    parser.add_argument("--visible", action="store_true", help=unseen)
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
    from coigan.augmentation import RealObjects, Source, write_augmented
    from coigan.data.images import images_in
    from coigan.data.line_sets import LineSet
    from coigan.data.objects import ObjectStore
    from coigan.data.placer import Placer
    from coigan.data.samples import augmentation_of, open_root
    from coigan.inference import read_trained
    from gan_plugin.errors import UserError
    from gan_plugin.rules import SHARE

    if args.counts and (min(args.counts) < 0 or sum(args.counts) <= 0):
        raise UserError("--counts are probabilities: 0 or more each, not all 0.")
    SHARE.check("--clean", args.clean or 0)
    trained = read_trained(args.weights, args.config_file, average=not args.last)
    data = trained.cfg.DATA
    count = _count(args.count, trained.classes)
    if args.counts and not isinstance(count, int):
        raise UserError("--counts draws how many objects a picture has; --count CLASS=N says it already. Give one.")
    prepared = open_root(trained.cfg, args.data)
    if prepared.classes != trained.classes:
        raise UserError(f"{prepared.root} has the classes {prepared.classes}, but the weights {trained.classes}.")
    banks = args.shapes or (data.SHAPE_BANKS if data.SHAPE_SOURCE == "generated" and args.method == "gan" else [])
    if banks and (args.method != "gan" or len(banks) != len(prepared.classes)):
        raise UserError(f"--shapes names a bank for each of the {len(prepared.classes)} classes, for --method gan.")
    shapes = [ObjectStore(Path(bank), masks_only=True) for bank in banks]
    stores = shapes or [ObjectStore(prepared.objects(number)) for number in range(len(prepared.classes))]
    if args.counts and args.bases:
        raise UserError("--counts places objects on tiles; leave it out with --bases.")
    tiles = LineSet(prepared.root / "train")
    like = None if args.counts else RealObjects(tiles, shapes)
    clean = args.clean if args.clean is not None else like.clean if like and isinstance(count, int) else 0.0
    placer = Placer(stores, prepared.tile, args.counts or [0, 1], augmentation_of(trained.cfg), data.OVERLAP)
    bases = images_in(args.bases) if args.bases else prepared.tiles("base")
    provenance = {"method": args.method, "set_seed": args.seed}
    if args.method == "gan":
        provenance |= {"weights_sha256": trained.digest, "strength": args.strength, "margin": args.margin}
    paint = _by_generator(args) if args.method == "gan" else METHODS[args.method]
    source = Source(bases, placer, prepared.classes, like, clean)
    real = tiles if args.with_real else None
    path = write_augmented(args.out, source, paint, count, args.seed, provenance, real, args.visible)
    info = json.loads(path.read_text(encoding="utf-8"))["info"]
    objects = ", ".join(f"{name} {number}" for name, number in info["objects"].items())
    print(
        f"{info['images']} images by {args.method}, {info['clean_images']} of them without objects: {path}; objects: "
        f"{objects}; pictures in {Path(args.out) / 'images'}"
    )
    left = ", left out" if args.visible else ""
    print(f"invisible labels: {info['invisible_labels']} of {info['labels']}{left}")


def _count(words: list[str], classes: tuple[str, ...]) -> "int | dict[int, int]":
    from gan_plugin.errors import UserError

    numbers: dict[int, int] = {}
    for word in words:
        name, sign, number = word.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (not sign and len(words) > 1):
            raise UserError(
                f"--count {' '.join(words)} is neither a number above 0 nor CLASS=N, such as {classes[0]}=100."
            )
        if not sign:
            return int(number)
        matching = [label for label, other in enumerate(classes) if other == name] or [
            label for label, other in enumerate(classes) if other.casefold() == name.casefold()
        ]
        if len(matching) != 1 or matching[0] in numbers:
            raise UserError(f"--count {word} names no class, or one twice; the classes are {', '.join(classes)}.")
        numbers[matching[0]] = int(number)
    return numbers


def _by_generator(args: argparse.Namespace) -> "Paint":
    import numpy as np

    from coigan.data.placer import Placement

    inpainter = open_inpainter(args)

    def paint(image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
        return inpainter.paint(image, placement.masks, seed, args.strength, args.margin)

    return paint
