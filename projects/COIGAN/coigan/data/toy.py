"""Procedural steel sheets in the format of Kaggle's Severstal set: train_images/, and train.csv with run lengths.

Every change is relative to the brightness and the texture that are there already: a defect cut out of one sheet does
not match another one, which is what makes plain copy and paste a poor augmentation (thesis 1.1.3).
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from coigan.data.images import whole_folder
from coigan.data.regions import encode_runs
from gan_plugin.errors import UserError

Rng = np.random.Generator

# kinds 0 to 3 stand for Severstal's classes 1 to 4, about as frequent as there
FREQUENCIES = (0.15, 0.04, 0.69, 0.12)


def smooth_noise(rng: Rng, height: int, width: int, rows: float, columns: float) -> np.ndarray:
    """(height, width) float32 of mean 0 and deviation about 1 whose blotches are `rows` by `columns` pixels."""
    cells = max(2, round(height / rows)), max(2, round(width / columns))
    small = rng.standard_normal(cells, dtype=np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def pits(rng: Rng, height: int, width: int) -> np.ndarray:
    """A cluster of small pits; (height, width) bool."""
    mask = np.zeros((height, width), np.uint8)
    spread = rng.uniform(6, 22)
    centre = rng.uniform([0, 0], [width, height])
    for _ in range(int(rng.integers(3, 10))):
        place = np.round(centre + rng.normal(0, spread, 2)).astype(int)
        axes = rng.integers(2, 7, 2)
        cv2.ellipse(mask, tuple(map(int, place)), tuple(map(int, axes)), rng.uniform(0, 180), 0, 360, 1, -1)
    return mask > 0


def crack(rng: Rng, height: int, width: int) -> np.ndarray:
    """A thin line across the sheet; (height, width) bool."""
    mask = np.zeros((height, width), np.uint8)
    length = rng.uniform(0.3, 0.95) * height
    rows = np.arange(0, length, 4) + rng.uniform(0, height - length)
    columns = rng.uniform(0, width) + np.cumsum(rng.normal(0, 1.2, len(rows)))
    line = np.round(np.stack([columns, rows], 1)).astype(np.int32)
    cv2.polylines(mask, [line], isClosed=False, color=1, thickness=int(rng.integers(3, 8)))
    return mask > 0


def scratches(rng: Rng, height: int, width: int) -> np.ndarray:
    """A ragged streak along the direction of rolling; (height, width) bool."""
    return _blob(rng, height, width, rng.uniform(25, 140), rng.uniform(5, 22), rng.uniform(-25, 25), 0.45)


def scale_patch(rng: Rng, height: int, width: int) -> np.ndarray:
    """A large flaky patch, often with holes; (height, width) bool."""
    side = min(height, 256)
    half, across = rng.uniform(0.12 * side, 0.32 * side, 2)
    return _blob(rng, height, width, half, across, rng.uniform(0, 180), 0.75)


def _blob(rng: Rng, height: int, width: int, half: float, across: float, angle: float, raggedness: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns - rng.uniform(0, width), rows - rng.uniform(0, height)
    turn = np.deg2rad(angle)
    along, aside = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    distance = np.sqrt((along / half) ** 2 + (aside / across) ** 2)
    return distance + raggedness * 0.5 * smooth_noise(rng, height, width, across * 0.45, half * 0.3) < 1


SHAPES: tuple[Callable[[Rng, int, int], np.ndarray], ...] = (pits, crack, scratches, scale_patch)


def apply_defect(kind: int, steel: np.ndarray, mask: np.ndarray, rng: Rng) -> None:
    """Change `steel`, (H, W) float32 brightness, in place: under `mask`, and its tone a little around."""
    height, width = steel.shape
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    around = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 9.0)
    if kind == 0:
        steel *= 1 - soft * rng.uniform(0.35, 0.6)
    elif kind == 1:
        lit = soft - np.roll(soft, 2, axis=1)
        steel *= 1 - soft * rng.uniform(0.3, 0.5) + lit * rng.uniform(0.2, 0.35)
    elif kind == 2:
        sign = rng.choice([-1.0, 1.0], p=[0.6, 0.4])
        grain = smooth_noise(rng, height, width, 2, 18)
        steel *= 1 + sign * soft * (rng.uniform(0.2, 0.4) + 0.14 * grain) + sign * around * 0.06
    else:
        grain = smooth_noise(rng, height, width, 6, 8)
        rim = np.clip(around - soft, 0, 1)
        steel *= 1 - soft * (rng.uniform(0.15, 0.35) + 0.16 * grain) + rim * rng.uniform(0.15, 0.3)


_DEFECTIVE = 0.53  # Severstal: 6,666 of 12,568
_BLACK_MARGIN = 0.15
_LEAST_PIXELS = 12
_TRIES = 50


def make_sheet(
    rng: Rng, height: int, width: int, wanted: int | None = None
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """A picture, (height, width, 3) uint8 with three equal channels, and for each class its mask or None.

    Args:
        rng: all draws come from it.
        height, width: in pixels.
        wanted: the class that the sheet has a defect of; None leaves it to the draws.
    """
    steel, margin = _surface(rng, height, width)
    masks: list[np.ndarray | None] = [None] * len(SHAPES)
    if wanted is not None:
        for _ in range(_TRIES):
            if masks[wanted] is None:
                _add_defect(wanted, steel, margin, masks, rng)
    elif rng.random() < _DEFECTIVE:
        kinds = [int(rng.choice(len(SHAPES), p=FREQUENCIES))]
        if rng.random() < 0.1:
            kinds.append(int(rng.choice(len(SHAPES), p=FREQUENCIES)))
        for kind in kinds:
            for _ in range(int(rng.integers(1, 4))):
                _add_defect(kind, steel, margin, masks, rng)
    steel = cv2.GaussianBlur(steel, (0, 0), 0.6) + rng.normal(0, 2.0, steel.shape)
    steel[margin] = np.abs(rng.normal(0, 2.0, int(margin.sum())))
    grey = np.clip(steel, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2), masks


def _surface(rng: Rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Brightness, (height, width) float32 in about [40, 200], and the black margin beside the sheet."""
    steel = np.full((height, width), rng.uniform(65, 165), np.float32)
    steel *= 1 + 0.10 * smooth_noise(rng, height, width, height, 350)  # lamps
    steel *= 1 + 0.08 * smooth_noise(rng, height, width, 40, 500)  # bands along the direction of rolling
    steel *= 1 + 0.05 * smooth_noise(rng, height, width, 2, 60)  # fine marks of the rolls
    steel *= 1 + 0.03 * rng.standard_normal((height, width), dtype=np.float32)
    margin = np.zeros((height, width), bool)
    if rng.random() < _BLACK_MARGIN:
        edge = int(rng.uniform(0.05, 0.35) * width)
        margin[:, :edge] = True
        if rng.random() < 0.5:
            margin[:] = margin[:, ::-1].copy()
    return steel, margin


def _add_defect(kind: int, steel: np.ndarray, margin: np.ndarray, masks: list[np.ndarray | None], rng: Rng) -> None:
    taken = margin.copy()
    for other in masks:
        if other is not None:
            # a gap, so that two objects never become one
            taken |= cv2.dilate(other.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    mask = SHAPES[kind](rng, *steel.shape) & ~taken
    if mask.sum() < _LEAST_PIXELS:
        return
    apply_defect(kind, steel, mask, rng)
    before = masks[kind]
    masks[kind] = mask if before is None else before | mask


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
                    rows.writerow([name, kind + 1, encode_runs(mask)])
    (folder / _MANIFEST).write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def _jpeg(picture: np.ndarray) -> bytes:
    done, encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise ValueError(f"no JPEG of shape {picture.shape}")
    return encoded.tobytes()
