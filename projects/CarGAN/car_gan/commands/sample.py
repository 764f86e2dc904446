"""Draw new cars with a trained generator.

    cars.py sample output/dcgan --count 100 --output new_cars

Writes one PNG file for each car (RGB on the key colour, or RGBA from a generator with alpha), a sheet of the first 64,
and samples.json: how many there are, of which form, weights, seed and terms. `cars.py compose --samples` takes
the folder cars/. Cars of an earlier call are replaced; a folder with other pictures is refused.
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

_SHEET = 64
_OURS = re.compile(r"car_-?\d+_\d{6,}\.png")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Which generator."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="OUTPUT_DIR of a training")
    parser.add_argument("--weights", default="", metavar="FILE", help="in RUN; default: the best in FID")
    parser.add_argument("--seed", type=int, default=0, help="of the latents")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="options to change, such as MODEL.DEVICE cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=64, metavar="N")
    parser.add_argument(
        "--truncation", type=float, default=0.0, metavar="T", help="redraw entries of z beyond T; 0: none"
    )
    parser.add_argument("--label", default="", metavar="NAME", help="of a conditional generator, such as red")


def run(args: argparse.Namespace) -> None:
    """Draw and write."""
    from car_gan.colour import PICTURES, SAMPLES
    from car_gan.output_folder import made_folder
    from car_gan.runs.evaluation import write_picture
    from car_gan.runs.pictures import sheet
    from car_gan.runs.trained import load_trained
    from gan_plugin.errors import UserError
    from gan_plugin.files import write_whole

    if args.count < 1 or args.truncation < 0:
        raise UserError("--count must be 1 or more, and --truncation 0 or more.")
    trained = load_trained(args.run_folder, args.weights, args.opts)
    licence = licence_of_run(trained.run)
    folder = args.output / PICTURES[1]
    if strangers := [path.name for path in sorted(folder.glob("*")) if not _OURS.fullmatch(path.name)]:
        raise UserError(f"{folder} holds {strangers[0]}, which cars.py sample has not drawn; choose another --output.")
    images = trained.images(trained.latents(args.count, args.seed, args.truncation, args.label))
    # whole before it takes the place of what was there
    fresh = made_folder(args.output / f"{folder.name}.part")
    for path in fresh.iterdir():
        path.unlink()
    for index, pixels in enumerate(_pixels(images)):
        write_picture(fresh / f"car_{args.seed}_{index:06d}.png", pixels)
    (args.output / SAMPLES).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    write_picture(args.output / "sheet.png", sheet(images[:_SHEET], 8))
    facts = {
        "cars": args.count,
        "size": trained.cfg.INPUT.SIZE,
        "channels": trained.cfg.INPUT.CHANNELS,
        "key": trained.key,
        "run": str(trained.run),
        "weights": trained.weights.name,
        "seed": args.seed,
        "truncation": args.truncation,
        "label": args.label,
        "licence": licence,
    }
    text = json.dumps(facts, indent=1) + "\n"
    write_whole(args.output / SAMPLES, lambda file: file.write(text.encode()), "Choose another --output.")
    print(f"{args.count} cars of {trained.weights} in {folder}. {licence}")


def licence_of_run(run_folder: Path) -> str:
    """The terms that the training has noted for its weights and samples."""
    from car_gan.runs.training import PROVENANCE
    from gan_plugin.errors import UserError

    try:
        return json.loads((run_folder / PROVENANCE).read_text(encoding="utf-8"))["licence"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{run_folder / PROVENANCE} is missing or broken, so the terms of its samples are unknown; restore it."
        ) from error


def _pixels(images: "torch.Tensor") -> "np.ndarray":
    """(N, C, S, S) in [-1, 1] -> (N, S, S, C) bytes."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
