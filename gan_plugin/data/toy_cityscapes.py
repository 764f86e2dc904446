"""Procedural street scenes in Cityscapes' official layout, for trying things without the real set.

`toy_street` says what stands where, `toy_silhouettes` how it is outlined; here it gets textures, shadows, light and
noise, and becomes files.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from gan_plugin.errors import UserError, as_user_error

from .toy_silhouettes import Rng
from .toy_street import Element, compose

__all__ = ["write_toy_cityscapes"]

_MANIFEST = "toy_cityscapes.json"
_LEAST_SIZE = (64, 32)
FILES_PER_PICTURE = 4
# Far apart, so that no picture of one split equals one of another, whatever the seed and the number.
_SPLIT_NUMBERS = {"train": 0, "val": 1}
_CITIES = {"train": ("tinytown", "toyville"), "val": ("smallburg",)}
_SUPERSAMPLING = 2
_FIXED_POINT_BITS = 4
_CAMOUFLAGE = 0.2  # share of objects in nearly the colours behind them, so that a boundary can be wrong


def write_toy_cityscapes(
    out: str | Path, train: int, val: int, seed: int = 0, size: tuple[int, int] = (512, 256)
) -> bool:
    """Write `train` and `val` street scenes below out/cityscapes, so that `out` can be DETECTRON2_DATASETS.

    Pictures have all eight evaluated classes as silhouettes, crowds that overlap in painter's order, far small objects,
    group regions and ignored regions. Colour and texture do not depend on the class. Picture k of a split is the same
    whatever `train` and `val` are, and the same arguments give the same bytes.

    Args:
        out: a folder, made if need be.
        train, val: numbers of pictures.
        seed: 0 or more.
        size: width and height in pixels, at least 64 x 32.

    Returns:
        False if exactly this set was there already and nothing was done.

    Raises:
        UserError: an argument is out of range, `out` cannot be written, or it holds something else.
    """
    if min(train, val, seed) < 0 or train + val == 0:
        raise UserError(f"--train {train}, --val {val} and --seed {seed} must be 0 or more, with at least one picture.")
    if size[0] < _LEAST_SIZE[0] or size[1] < _LEAST_SIZE[1]:
        raise UserError(f"--size {size[0]}x{size[1]} is too small for a street; use at least 64x32.")
    root = Path(out)
    wanted = {"train": train, "val": val, "seed": seed, "size": list(size)}
    if _present(root / "cityscapes", wanted):
        return False
    with as_user_error(f"{root} cannot be written", "name another folder", OSError):
        _write(root, wanted)
    return True


def _present(folder: Path, wanted: dict) -> bool:
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    with as_user_error(
        f"{folder} holds other files, maybe the real Cityscapes", "name another folder", OSError, ValueError
    ):
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    if found != wanted:
        raise UserError(f"{folder} holds another toy set ({found}); name another folder, or delete that one.")
    missing = (
        FILES_PER_PICTURE * (wanted["train"] + wanted["val"]) + 1 - sum(path.is_file() for path in folder.rglob("*"))
    )
    if missing:
        raise UserError(
            f"The toy set in {folder} is no longer whole ({missing} files missing); delete it to write it anew."
        )
    return True


def _write(root: Path, wanted: dict) -> None:
    # Written beside its place and moved there at the end, so that an interrupted set does not pass for a whole one.
    staging = root / "cityscapes.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for split in ("train", "val"):
        for index in tqdm(range(wanted[split]), desc=split, unit="picture", disable=None):
            write_picture(staging, split, index, wanted["seed"], tuple(wanted["size"]))
    (staging / _MANIFEST).write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    staging.replace(root / "cityscapes")


def write_picture(root: Path, split: str, index: int, seed: int, size: tuple[int, int]) -> None:
    """Write picture `index` of `split` and its three annotation files below `root`, which plays cityscapes/.

    The files depend on (seed, split, index, size) alone.
    """
    width, height = size
    rng = np.random.default_rng([seed, _SPLIT_NUMBERS[split], index])
    elements = compose(rng, width, height)
    picture = render(elements, width, height, rng)
    cities = _CITIES[split]
    city = cities[index % len(cities)]
    stem = f"{city}_{index // len(cities):06d}_000019"
    images, truth = (root / part / split / city for part in ("leftImg8bit", "gtFine"))
    images.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    _write_png(images / f"{stem}_leftImg8bit.png", picture[..., ::-1])
    _write_truth(truth / f"{stem}_gtFine", elements, size)


def _write_truth(stem: Path, elements: list[Element], size: tuple[int, int]) -> None:
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
    from cityscapesscripts.preparation.json2labelImg import createLabelImage

    path = Path(f"{stem}_polygons.json")
    path.write_text(json.dumps(annotation(elements, size), indent=4), encoding="utf-8")
    official = Annotation()
    official.fromJsonFile(str(path))
    labels = np.asarray(createLabelImage(official, "ids"))
    # 16 bits, as in the official files; the script's own writer asks Pillow for 32, which new releases refuse.
    instances = np.asarray(createInstanceImage(official, "ids")).astype(np.uint16)
    Image.fromarray(labels).save(f"{stem}_labelIds.png")
    _write_png(Path(f"{stem}_instanceIds.png"), instances)


def annotation(elements: list[Element], size: tuple[int, int]) -> dict:
    """The content of a polygons.json: objects in painter's order, whole pixels, clipped to the picture."""
    limit = np.array(size) - 1
    objects = []
    for element in elements:
        points = np.clip(np.round(element.outline), 0, limit).astype(int)
        repeated = (points == np.roll(points, 1, axis=0)).all(axis=1)
        points = points[~repeated]
        # What is left of an object outside the picture, or smaller than a pixel, has no area.
        if len(points) >= 3 and np.ptp(points, axis=0).min() > 0:
            objects.append({"label": element.label, "polygon": points.tolist()})
    return {"imgHeight": size[1], "imgWidth": size[0], "objects": objects}


def _write_png(path: Path, pixels: np.ndarray) -> None:
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise OSError(f"{path} could not be encoded")
    path.write_bytes(encoded.tobytes())


def render(elements: list[Element], width: int, height: int, rng: Rng) -> np.ndarray:
    """Paint `elements` in order.

    Colours and textures come from one distribution whatever the label, so that only shape tells the classes apart.

    Returns:
        (height, width, 3) uint8, RGB.
    """
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 3), np.float32)
    for element in elements:
        if element.visible:
            _paint(canvas, element, rng)
    picture = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return _photograph(picture, rng)


def _paint(canvas: np.ndarray, element: Element, rng: Rng) -> None:
    if element.standing:
        _shadow(canvas, element.outline, rng)
    mask, (top, left) = _mask(canvas, element.outline)
    if not mask.any():
        return
    target = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    fill = _texture(rng, mask.shape)
    if element.standing and rng.random() < _CAMOUFLAGE:
        behind, own = (cv2.mean(part, mask.view(np.uint8))[:3] for part in (target, fill))
        fill += np.float32(np.subtract(behind, own) + rng.normal(0, 12, 3))
    np.copyto(target, fill, where=mask[..., None])
    # darker or brighter with equal chance: a shade must not become a colour cue
    factor = rng.choice([rng.uniform(0.45, 0.75), rng.uniform(1.3, 1.7)])
    for detail in element.details:
        part, (y, x) = _mask(canvas, detail)
        area = canvas[y : y + part.shape[0], x : x + part.shape[1]]
        area[part] = np.clip(area[part] * factor, 0, 255)


def _mask(canvas: np.ndarray, outline: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The outline as a boolean mask over its bounding box, and that box's top left corner on the canvas."""
    points = outline * _SUPERSAMPLING
    low = np.maximum(np.floor(points.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, canvas.shape[1::-1])
    shape = np.maximum(high - low, 0)
    mask = np.zeros((shape[1], shape[0]), np.uint8)
    if mask.size:
        fixed = np.round((points - low) * 2**_FIXED_POINT_BITS).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 1, shift=_FIXED_POINT_BITS)
    return mask.astype(bool), (int(low[1]), int(low[0]))


def _shadow(canvas: np.ndarray, outline: np.ndarray, rng: Rng) -> None:
    (x0, y0), (x1, y1) = outline.min(axis=0), outline.max(axis=0)
    angles = np.linspace(0, 2 * np.pi, 17)[:-1]
    centre = np.array([(x0 + x1) / 2 + rng.uniform(-0.2, 0.2) * (x1 - x0), y1])
    radii = np.array([(x1 - x0) * 0.6, max(1.0, (y1 - y0) * 0.06)])
    mask, (top, left) = _mask(canvas, centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1))
    area = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    area[mask] *= rng.uniform(0.55, 0.8)


def _colour(rng: Rng) -> np.ndarray:
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.05, 0.6), rng.uniform(0.2, 0.9)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _texture(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32 in [0, 255]: two colours mixed by a pattern, with a gradient from top to bottom."""
    first, second = _colour(rng), _colour(rng)
    step = np.float32((second - first) * rng.uniform(0.15, 0.6))
    fill = _pattern(rng, shape)[..., None] * step
    fill += first
    fill *= np.linspace(rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15), shape[0], dtype=np.float32)[:, None, None]
    return np.clip(fill, 0, 255, out=fill)


def _pattern(rng: Rng, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1]: blotches, stripes, checks or nothing, and some grain."""
    period, angle = rng.uniform(5, 24), rng.uniform(0, np.pi)
    kind = rng.choice(["plain", "blotches", "stripes", "checks"], p=[0.3, 0.4, 0.18, 0.12])
    pattern = rng.standard_normal(shape, dtype=np.float32)
    pattern *= 0.12
    if kind == "blotches":
        cells = (max(2, int(shape[0] / period)), max(2, int(shape[1] / period)))
        blotches: Any = cv2.resize(rng.random(cells, dtype=np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
        pattern += blotches
    elif kind == "plain":
        pattern += 0.5
    else:
        bright = _waves(shape, period, angle)
        pattern += bright if kind == "stripes" else bright ^ _waves(shape, period, angle + np.pi / 2)
    return np.clip(pattern, 0, 1, out=pattern)


def _waves(shape: tuple[int, int], period: float, angle: float) -> np.ndarray:
    """(H, W) of bool, true on every other half of `period` pixels along `angle`."""
    rows, columns = (np.arange(side, dtype=np.float32) for side in shape)
    along = np.float32(np.sin(angle) * 2 / period) * rows[:, None] + np.float32(np.cos(angle) * 2 / period) * columns
    return np.floor(along).astype(np.int32) % 2 == 0


def _photograph(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Uneven light, a soft lens and sensor noise."""
    height, width = picture.shape[:2]
    light = np.linspace(rng.uniform(0.8, 1.15), rng.uniform(0.8, 1.15), width, dtype=np.float32)
    picture = picture * light[None, :, None]
    noise = rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(rng.uniform(2, 6))
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.35, 0.7)) + noise
    return np.clip(picture, 0, 255).astype(np.uint8)
