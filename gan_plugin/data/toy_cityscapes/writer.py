"""Scenes as files in Cityscapes' official layout."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .render import render
from .scene import Element, compose

FILES_PER_PICTURE = 4
# Far apart, so that no picture of one split equals one of another, whatever the seed and the number.
_SPLIT_NUMBERS = {"train": 0, "val": 1}
_CITIES = {"train": ("tinytown", "toyville"), "val": ("smallburg",)}


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
