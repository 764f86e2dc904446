"""Toy sheets as Kaggle packs Severstal's: train_images/ and train.csv with run lengths."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np

from coigan.data import rle
from coigan.data.images import whole_folder
from gan_plugin.errors import UserError

from .defects import make_sheet

_MANIFEST = "toy_steel.json"
_LEAST_SIDE = 64


def write_toy_steel(out: str | Path, count: int, seed: int = 0, size: tuple[int, int] = (256, 1600)) -> bool:
    """Write `count` sheets with defects of four unbalanced classes into the folder `out`.

    Sheet k depends on the seed, k and the size alone. About half of the sheets have defects; some have a black margin.
    The sheets 1, 3, 5 and 7 have one of the classes each, so that eight sheets have all.

    Args:
        out: a folder that is absent, empty or holds exactly this set.
        count: 1 or more.
        seed: 0 or more.
        size: height and width in pixels, each 64 or more.

    Returns:
        False if the set was there already and nothing was done.

    Raises:
        UserError: an argument is out of range, or `out` holds something else or cannot be written.
    """
    height, width = size
    if count < 1 or seed < 0 or min(size) < _LEAST_SIDE:
        raise UserError(
            f"A toy set needs a count of 1 or more (not {count}), a seed of 0 or more (not {seed}) and sides of "
            f"{_LEAST_SIDE} pixels or more (not {height}x{width})."
        )
    root = Path(out)
    wanted = {"count": count, "seed": seed, "size": list(size)}
    if root.is_dir() and any(root.iterdir()):
        manifest = root / _MANIFEST
        if manifest.is_file() and json.loads(manifest.read_text()) == wanted:
            return False
        raise UserError(f"{root} holds other files; name another folder for the toy set, or empty that one.")
    with whole_folder(root) as part:
        (part / "train_images").mkdir()
        _write_sheets(part, wanted)
    return True


def _write_sheets(folder: Path, wanted: dict) -> None:
    with open(folder / "train.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "ClassId", "EncodedPixels"])
        height, width = wanted["size"]
        for number in range(wanted["count"]):
            rng = np.random.default_rng([wanted["seed"], number])
            kind = number // 2 if number % 2 and number < 8 else None
            picture, masks = make_sheet(rng, height, width, kind)
            name = f"{number:06d}.jpg"
            (folder / "train_images" / name).write_bytes(_jpeg(picture))
            for kind, mask in enumerate(masks):
                if mask is not None:
                    rows.writerow([name, kind + 1, rle.encode(mask)])
    (folder / _MANIFEST).write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def _jpeg(picture: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise ValueError(f"no JPEG of shape {picture.shape}")
    return encoded.tobytes()
