"""Paint defects into one image of any size.

    inpaint.py infer WEIGHTS IMAGE OUT.png --mask CLASS=mask.png --seed 3
    inpaint.py infer WEIGHTS IMAGE OUT.png --ellipse CLASS=X,Y,WIDTH,HEIGHT --strength 0.7

OUT.png.json says how it was made. Masks are pictures of the image's size, white or of one
colour where a defect is wanted and black or transparent elsewhere.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from coigan.commands._arguments import add_weights_arguments, open_inpainter

if TYPE_CHECKING:
    import numpy as np


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_weights_arguments(parser)
    parser.add_argument("image", metavar="IMAGE")
    parser.add_argument("out", metavar="OUT", help="the PNG to write")
    parser.add_argument("--mask", action="append", default=[], metavar="CLASS=FILE")
    parser.add_argument("--ellipse", action="append", default=[], metavar="CLASS=X,Y,W,H", help="its box in pixels")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--strength", type=float, default=1.0, metavar="F", help="0 nothing, 1 all (default), up to 2")
    parser.add_argument("--margin", type=int, metavar="PIXELS", help="keep the image further from the masks; -1 never")


def run(args: argparse.Namespace) -> None:
    """Paint.

    Raises:
        UserError: an argument is not usable, or a file cannot be read or written.
    """
    from collections import Counter

    import numpy as np

    from coigan.data.images import encode_png
    from gan_plugin.data.masks import read_mask
    from gan_plugin.data.pictures import read_rgb
    from gan_plugin.errors import UserError
    from gan_plugin.files import write_whole
    from gan_plugin.rules import between, whole

    if not args.mask and not args.ellipse:
        raise UserError("Nothing is asked for; add --mask CLASS=FILE or --ellipse CLASS=X,Y,W,H.")
    between(0, 2).check("--strength", args.strength)
    whole(0).check("--seed", args.seed)
    whole(-1).check("--margin", -1 if args.margin is None else args.margin)
    inpainter = open_inpainter(args)
    image = read_rgb(args.image)
    masks = np.zeros((len(inpainter.classes), *image.shape[:2]), bool)
    for text in args.mask:
        place, file = _split(text, inpainter.classes)
        form: Counter[str] = Counter()
        mask = read_mask(file, form)
        if mask.shape != image.shape[:2]:
            raise UserError(f"The mask {file} has another size than {args.image}; draw it on that image.")
        masks[place] |= mask
        print(f"mask {file}: {', '.join(form)}; {int(mask.sum())} pixels of class {inpainter.classes[place]}")
    for text in args.ellipse:
        place, box = _split(text, inpainter.classes)
        masks[place] |= _ellipse(box, *image.shape[:2])
    painted = inpainter.paint(image, masks, args.seed, args.strength, args.margin)
    facts = inpainter.facts(Path(args.image).name, args.seed, args.strength, args.margin)
    write_whole(args.out, encode_png(painted))
    write_whole(f"{args.out}.json", json.dumps(facts, indent=1))
    print(f"{args.out}: {int(masks.any(0).sum())} pixels under masks")


def _split(text: str, classes: tuple[str, ...]) -> tuple[int, str]:
    from gan_plugin.errors import UserError

    name, sign, value = text.partition("=")
    if not sign or name not in classes:
        raise UserError(f"{text!r} begins with no class and =; the classes are {', '.join(classes)}.")
    return classes.index(name), value


def _ellipse(text: str, height: int, width: int) -> "np.ndarray":
    import cv2
    import numpy as np

    from gan_plugin.errors import UserError

    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--ellipse {text!r} is no X,Y,W,H, such as 40,60,30,12.") from error
    canvas = np.zeros((height, width), np.uint8)
    centre, axes = (round(x + w / 2), round(y + h / 2)), (max(1, round(w / 2)), max(1, round(h / 2)))
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1)
    return canvas > 0
