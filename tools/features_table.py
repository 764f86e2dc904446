#!/usr/bin/env python
"""Do feature networks put sets of pictures in the right order? FID and KID of known cases, as a Markdown table.

    python tools/features_table.py DATA [--side 64] [--features lite0 random] [--inception FILE]

DATA holds PennFudanPed, magnetic_tiles (MT_<class>/Imgs with a mask beside each picture), or both. One half of the
people, cut out as squares, is what the other half is compared with: as it is, damaged more and more, and in its place
squares of the same photographs without people. Of the tiles it is windows with a defect, and in place of the other half
clean windows with defects pasted in, and clean ones. The distance has to grow from row to row of a ladder; a star says
that it does not.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from _command_line import Parser, positive, run_command_line

if TYPE_CHECKING:
    import numpy as np

    from gan_plugin.evaluation.image_features import Extractor

    # pictures (N, S, S, 3) in bytes
    Pictures = np.ndarray
    # name of a case -> its pictures, in the order in which distances have to grow
    Ladder = dict[str, Pictures]

SEED = 0
BLURS, NOISES, FACTORS, GRIDS = (0.5, 1, 2, 4), (4, 10, 25, 60), (2, 4, 8), (2, 4, 8)
# photographs of one tile have numbers close together, and stay in one half
_TILE_NUMBERS = 12
_WINDOWS = 2
# the smallest tile has 105 pixels a side
_MOST = 96


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--side", type=positive, default=64, metavar="S", help="of the pictures, in pixels")
    parser.add_argument("--features", nargs="+", choices=("lite0", "random"), default=["lite0", "random"])
    parser.add_argument("--inception", default="", metavar="FILE", help="torch-fidelity's weights, for a third network")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """Print a table for each data set that is there."""
    from gan_plugin.errors import UserError
    from gan_plugin.evaluation.image_features import build_extractor

    networks = [build_extractor(features=name) for name in args.features]
    networks += [build_extractor(args.inception)] if args.inception else []
    if args.side % max(GRIDS) or args.side > _MOST:
        raise UserError(f"--side is {args.side}; choose a multiple of {max(GRIDS)} up to {_MOST}.")
    makers = {"PennFudanPed": people, "magnetic_tiles": tiles}
    found = [name for name in makers if (args.data / name).is_dir()]
    if not found:
        raise UserError(f"{args.data} holds neither {' nor '.join(makers)}; check the path.")
    for name in found:
        reference, ladders = makers[name](args.data / name, args.side)
        print(f"\n{name}: {len(reference)} pictures of {args.side} pixels to compare with\n")
        print(table(reference, ladders, networks))


def table(reference: "Pictures", ladders: "dict[str, Ladder]", networks: "list[Extractor]") -> str:
    """Markdown: a row for each case, FID and KID by each network, a star where one is not above the row before it."""
    from tabulate import tabulate

    rows: dict[tuple[str, str], list[str]] = {}
    for network in networks:
        for title, case, *values in distances(reference, ladders, network):
            cells = [f"{value:.4g}{'' if rises else ' *'}" for value, rises in values]
            rows.setdefault((title, case), []).extend(cells)
    headers = ["ladder", "case", *(f"{score}, {network.name}" for network in networks for score in ("FID", "KID"))]
    return tabulate([[*key, *cells] for key, cells in rows.items()], headers, "github", disable_numparse=True)


def distances(reference: "Pictures", ladders: "dict[str, Ladder]", network: "Extractor") -> Iterator[tuple]:
    """(ladder, case, FID, KID) of each case, either with whether it is above the case before it."""
    from gan_plugin.evaluation.image_features import Features, extract
    from gan_plugin.evaluation.image_scores import frechet_distance, kernel_distance

    def seen(pictures: "Pictures") -> Features:
        import torch

        return extract(network, [torch.from_numpy(pictures).permute(0, 3, 1, 2)])

    real = seen(reference).values
    known: dict[int, tuple[float, float]] = {}
    for title, ladder in ladders.items():
        before = (-math.inf, -math.inf)
        for case, pictures in ladder.items():
            if id(pictures) not in known:
                values = seen(pictures).values
                known[id(pictures)] = (frechet_distance(real, values), kernel_distance(real, values)[0])
            now = known[id(pictures)]
            yield title, case, *((value, value > last) for value, last in zip(now, before, strict=True))
            before = now


def damage(pictures: "Pictures") -> "dict[str, Ladder]":
    """Ladders that begin with `pictures` as they are, and damage them more and more in one way each."""
    import cv2
    import numpy as np

    count, side = pictures.shape[:2]
    random = np.random.default_rng(SEED)
    grain = random.standard_normal(pictures.shape)
    orders = {grid: [random.permutation(grid * grid) for _ in range(count)] for grid in GRIDS}

    def each(change) -> "Pictures":
        return np.stack([change(picture) for picture in pictures])

    def coarse(picture: "np.ndarray", factor: int) -> "np.ndarray":
        small = cv2.resize(picture, (side // factor,) * 2, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)

    return {
        "blur": {
            "as they are": pictures,
            **{f"sigma {s}": each(lambda picture, s=s: cv2.GaussianBlur(picture, (0, 0), s)) for s in BLURS},
        },
        "noise": {
            "as they are": pictures,
            **{f"deviation {s}": (pictures + s * grain).round().clip(0, 255).astype(np.uint8) for s in NOISES},
        },
        "resolution": {
            "as they are": pictures,
            **{f"1/{factor}": each(lambda picture, factor=factor: coarse(picture, factor)) for factor in FACTORS},
        },
        "shuffled": {
            "as they are": pictures,
            **{f"{grid} x {grid} pieces": np.stack([*map(shuffled, pictures, orders[grid])]) for grid in GRIDS},
        },
    }


def shuffled(picture: "np.ndarray", order: "np.ndarray") -> "np.ndarray":
    """A square picture whose square pieces, whose number is that of `order`, are put together in that order."""
    grid, side = int(len(order) ** 0.5), len(picture)
    part = side // grid
    pieces = picture.reshape(grid, part, grid, part, 3).swapaxes(1, 2).reshape(-1, part, part, 3)
    return pieces[order].reshape(grid, grid, part, part, 3).swapaxes(1, 2).reshape(side, side, 3)


def people(folder: Path, side: int) -> "tuple[Pictures, dict[str, Ladder]]":
    """Squares around the persons of every other photograph; and the ladders of those of the rest."""
    import numpy as np

    from gan_plugin.data.pictures import read_rgb, read_upright

    random = np.random.default_rng(SEED)
    halves: list[list[np.ndarray]] = [[], []]
    grounds: list[np.ndarray] = []
    for number, path in enumerate(sorted((folder / "PNGImages").glob("*.png"))):
        pixels = read_rgb(path)
        mask = np.asarray(read_upright(folder / "PedMasks" / f"{path.stem}_mask.png"))
        for person in range(1, int(mask.max()) + 1):
            places = np.argwhere(mask == person)
            low, high = places.min(0), places.max(0)
            span = min(int((high - low).max()) + 1, *mask.shape)
            halves[number % 2].append(resized(pixels[window(mask.shape, *((low + high) // 2), span)], side))
            for _ in range(20 if number % 2 else 0):
                place = window(mask.shape, *(random.integers(length) for length in mask.shape), max(side, span // 2))
                if not mask[place].any():
                    grounds.append(resized(pixels[place], side))
                    break
    reference, other = (np.stack(half) for half in halves)
    return reference, {**damage(other), "class": {"as they are": other, "no people": np.stack(grounds)}}


def tiles(folder: Path, side: int) -> "tuple[Pictures, dict[str, Ladder]]":
    """Windows with a defect on half of the tiles; and the ladders of those on the others."""
    import numpy as np

    from gan_plugin.data.masks import read_mask
    from gan_plugin.data.pictures import read_rgb

    random = np.random.default_rng(SEED)
    defects: list[list[tuple[np.ndarray, np.ndarray]]] = [[], []]
    clean: list[np.ndarray] = []
    for path in sorted(folder.glob("MT_*/Imgs/*.jpg")):
        pixels = read_rgb(path)
        half = int(path.stem.split("_")[-1]) // _TILE_NUMBERS % 2
        mask = read_mask(path.with_suffix(".png"))
        free = path.parts[-3] == "MT_Free"
        places = np.argwhere(~mask if free else mask)
        if min(mask.shape) < side or not len(places) or (free and not half):
            continue
        for row, column in random.choice(places, 2 * _WINDOWS if free else _WINDOWS):
            place = window(mask.shape, row, column, side)
            clean.append(pixels[place]) if free else defects[half].append((pixels[place], mask[place]))
    reference, other = (np.stack([pixels for pixels, _ in half]) for half in defects)
    pasted = np.stack([paste(clean[i % len(clean)], *defect) for i, defect in enumerate(defects[1])])
    unpainted = np.stack([clean[i % len(clean)] for i in range(len(other))])
    painted = {"as they are": other, "pasted on clean tiles": pasted, "clean tiles": unpainted}
    return reference, {**damage(other), "painted": painted}


def window(shape: tuple[int, ...], row: int, column: int, side: int) -> tuple[slice, slice]:
    """The square around a place, moved into a picture of (H, W)."""
    starts = [min(max(0, int(at) - side // 2), length - side) for at, length in zip((row, column), shape, strict=True)]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def resized(pixels: "np.ndarray", side: int) -> "np.ndarray":
    """A square picture of another size, without aliasing."""
    import cv2

    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)


def paste(base: "np.ndarray", pixels: "np.ndarray", mask: "np.ndarray") -> "np.ndarray":
    """`base` with what `pixels` differ from their surroundings by inside `mask`, with a soft border."""
    import cv2
    import numpy as np

    around = pixels[~mask] if mask.mean() < 0.9 else pixels.reshape(-1, 3)
    alpha = cv2.GaussianBlur(cv2.dilate(mask.astype(np.float32), np.ones((3, 3))), (0, 0), 1.5)[..., None]
    return (base + alpha * (pixels - around.mean(0))).round().clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
