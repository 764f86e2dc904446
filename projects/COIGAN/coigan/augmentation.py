"""Synthetic training images with their labels, by the generator or by one of two baselines."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

from coigan.data.images import safe_path, whole_folder, write_png
from coigan.data.line_sets import LineSet, annotation, categories_of, coco_content
from coigan.data.objects import CutOut, ObjectStore
from coigan.data.placer import Placement, Placer
from gan_plugin.data.pictures import read_header, read_rgb
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import write_whole


def poisson_blend(image: np.ndarray, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`image` whose values under `mask` have the gradients of `pixels` there and continue the image at its outline.

    The object's pixels are known under the mask only, so the gradient across its outline is taken as zero. Beyond the
    image's own border nothing is asked for.

    Args:
        image, pixels: (H, W, 3) uint8.
        mask: (H, W) bool.

    Returns:
        (H, W, 3) uint8; `image` outside of the mask. A mask of the whole image has no outline: `pixels`.
    """
    if mask.all():
        return pixels.copy()
    places = np.argwhere(mask)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(len(places))
    own = pixels.astype(float)
    right = np.zeros((len(places), 3))
    degree = np.zeros(len(places))
    rows, columns = [], []
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        beside = places + step
        there = ((beside >= 0) & (beside < mask.shape)).all(1)
        here, beside = np.flatnonzero(there), beside[there]
        degree[here] += 1
        inside = mask[beside[:, 0], beside[:, 1]]
        inner, outer = here[inside], here[~inside]
        q, border = beside[inside], beside[~inside]
        right[inner] += own[places[inner, 0], places[inner, 1]] - own[q[:, 0], q[:, 1]]
        right[outer] += image[border[:, 0], border[:, 1]]
        rows.append(inner)
        columns.append(number[q[:, 0], q[:, 1]])
    coupled = np.concatenate(rows), np.concatenate(columns)
    diagonal = np.arange(len(places))
    matrix = csr_matrix(
        (
            np.concatenate([degree, -np.ones(len(coupled[0]))]),
            (np.concatenate([diagonal, coupled[0]]), np.concatenate([diagonal, coupled[1]])),
        )
    )
    result = image.copy()
    solved = spsolve(matrix.tocsc(), right).reshape(len(places), 3)
    result[mask] = solved.round().clip(0, 255).astype(np.uint8)
    return result


ANNOTATIONS = "annotations.json"
_PREFIX = "aug_"
# how many masks of a bank that are nearest in area, or which part of it, are chosen from
_NEAR = 20
_TRIES = 20
# so many pictures in a row without a visible label mean that there will be none
_MOST_INVISIBLE = 100
# grey levels of 255: a smaller change is none, however quiet the picture
_LEAST_CHANGE = 1.0
# what has to be looked up before images are passed on
TERMS = (
    {
        "name": "source images",
        "note": "base images and objects keep their data set's terms (Severstal: Kaggle's rules)",
    },
    {"name": "LaMa", "note": "architecture of the generator, Apache-2.0", "url": "https://github.com/advimman/lama"},
    {"name": "perceptual weights", "note": "where training used them: the terms of ADE20K's or ImageNet's weights"},
)
# base image, what was placed, and a seed -> the image with defects
Paint = Callable[[np.ndarray, Placement, int], np.ndarray]


class RealObjects:
    """What the pictures of a training set hold, one by one.

    Args:
        tiles: of a prepared data set.
        banks: a store of masks for each class, whose masks of about the same area stand in for those of real objects,
            without pixels; () for the real ones.

    Attributes:
        labels: of the objects of each picture.
        clean: share of pictures without any.
    """

    def __init__(self, tiles: LineSet, banks: Sequence[ObjectStore] = ()) -> None:
        self._tiles, self._banks = tiles, banks
        self._areas = [np.array([row[3] for row in bank.measured()]) for bank in banks]
        self.labels = [[region.label for region in tiles.regions(record)] for record in tiles.store]
        self.clean = sum(not labels for labels in self.labels) / max(1, len(self.labels))

    def holding(self, wanted: Mapping[int, int]) -> list[int]:
        """The pictures with an object of one of the classes of which some are wanted; of any, if `wanted` is empty."""
        return [
            number
            for number, labels in enumerate(self.labels)
            if any(wanted.get(label, 0) > 0 if wanted else True for label in labels)
        ]

    def objects(self, number: int, rng: np.random.Generator) -> list[tuple[int, CutOut]]:
        """Class and cut-out of each object of picture `number`."""
        record = self._tiles.store[number]
        pixels = None if self._banks else self._tiles.image(record)
        found = []
        for place, region in enumerate(self._tiles.regions(record)):
            if pixels is None:
                cut = self._of_area(region.label, region.area, rng)
            else:
                x0, y0, x1, y1 = region.box
                cut = CutOut(f"{Path(record['img']).stem}_{place}", region.mask, pixels[y0 : y1 + 1, x0 : x1 + 1])
            found.append((region.label, cut))
        return found

    def _of_area(self, label: int, area: int, rng: np.random.Generator) -> CutOut:
        far = np.abs(np.log(self._areas[label] / area))
        near = np.argsort(far)[: max(_NEAR, len(far) // _NEAR)]
        return self._banks[label][int(rng.choice(near))]


@dataclass(frozen=True)
class Source:
    """Where the pictures and the masks come from.

    Attributes:
        bases: defect-free images.
        placer: places objects, and chooses them unless `like` does.
        classes: names of the classes.
        like: real pictures, one of which each synthetic one follows: how many objects of which classes and sizes.
        clean: share of the pictures that get no object.
    """

    bases: list[Path]
    placer: Placer
    classes: tuple[str, ...]
    like: RealObjects | None = None
    clean: float = 0.0


def copy_paste(image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
    """The objects' own pixels on the image: the simplest baseline, whose borders jump."""
    result = image.copy()
    for mask, canvas in zip(placement.masks, placement.canvases, strict=True):
        result[mask] = canvas[mask]
    return result


def poisson(image: np.ndarray, placement: Placement, seed: int) -> np.ndarray:
    """The objects' gradients on the image, object by object (see `poisson_blend`)."""
    result = image
    for label, mask, _ in placement.objects:
        result = poisson_blend(result, placement.canvases[label], mask)
    return result


BASELINES: dict[str, Paint] = {"copy_paste": copy_paste, "poisson": poisson}


def noise_level(pixels: np.ndarray) -> float:
    """The deviation of noise in (H, W, 3) uint8, in grey levels of 255 (Immerkaer 1996, doi 10.1006/cviu.1996.0060).

    Fine texture counts as noise: what is weaker cannot be told from it.
    """
    # blind to everything that is a plane within 3 x 3 pixels; its response to noise of deviation 1 has deviation 6
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    found = cv2.filter2D(pixels.astype(np.float32), -1, kernel)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(found).mean() / 6) if found.size else 0.0


def is_visible(base: np.ndarray, painted: np.ndarray, mask: np.ndarray) -> bool:
    """Whether the pixels under a label have changed, on average, by the noise of the base image or more.

    Args:
        base, painted: (H, W, 3) uint8.
        mask: (H, W) bool, not empty.
    """
    change = np.abs(painted[mask].astype(float) - base[mask]).mean()
    return bool(change >= max(noise_level(base), _LEAST_CHANGE))


def write_augmented(
    out: str | Path,
    source: Source,
    paint: Paint,
    count: int | Mapping[int, int],
    seed: int,
    provenance: Mapping[str, Any],
    real: LineSet | None = None,
    only_visible: bool = False,
) -> Path:
    """Write synthetic images and their labels: images/aug_<i>.png, annotations.json, provenance.jsonl.

    Every object that was placed is labelled, however small, with its exact mask as run lengths, so that Detectron2's
    `register_coco_instances` reads the JSON (with INPUT.MASK_FORMAT bitmask). Image i depends on the seed and i alone;
    if objects are counted, on the images before it as well. Every image and annotation says whether it is synthetic;
    provenance.jsonl has a line for each synthetic image, with the ids of its annotations, which hold the masks that the
    painter was given.

    Args:
        out: a folder that does not exist yet or is empty.
        source: of images and masks.
        paint: makes the picture.
        count: images, 1 or more; or for classes the number of their objects, and none of other classes.
        seed: of all choices.
        provenance: what is the same for all images, such as the weights' hash.
        real: annotated images to copy before the synthetic ones, so that the result is a whole training set.
        only_visible: leave out labels that `is_visible` denies, and pictures without any other; more are made instead.

    Returns:
        The path of annotations.json, whose "info" has the numbers of images, clean ones, objects by class, and of all
        labels that were painted and those that are invisible, with those that were left out.

    Raises:
        UserError: `out` holds files, there is no base image, nothing could be placed, or `real` has other classes, a
            missing image or one with the name of a synthetic one.
    """
    if not source.bases:
        raise UserError("There is no base image without defects; prepare the data set again.")
    content: dict[str, Any] = {
        "info": {"description": "synthetic defects", "synthetic": True, **provenance},
        "licenses": [{"id": number, **terms} for number, terms in enumerate(TERMS, start=1)],
        "categories": categories_of(source.classes),
        "images": [],
        "annotations": [],
    }
    with whole_folder(out) as part:
        (part / "images").mkdir()
        if real is not None:
            _copy(real, part / "images", content)
        lines: list[str] = []
        made, clean = Counter[int](), 0
        labels, invisible, missed = 0, 0, 0
        for base, placement, image_seed in placements(source, count, seed, made, lines):
            pixels = read_rgb(base)
            picture = paint(pixels, placement, image_seed) if placement.objects else pixels
            seen = [is_visible(pixels, picture, mask) for _, mask, _ in placement.objects]
            labels, invisible = labels + len(seen), invisible + seen.count(False)
            if only_visible and seen and not any(seen):
                missed += 1
                if missed == _MOST_INVISIBLE:
                    raise UserError(
                        f"{missed} pictures in a row have no visible label; train longer, or leave out --visible."
                    )
                continue
            missed = 0
            name = f"{_PREFIX}{len(lines):06d}.png"
            write_png(part / "images" / name, picture)
            height, width = picture.shape[:2]
            image = {"id": len(content["images"]) + 1, "file_name": name, "height": height, "width": width}
            content["images"].append({**image, "synthetic": True})
            objects = []
            for (label, mask, key), visible in zip(placement.objects, seen, strict=True):
                if only_visible and not visible:
                    continue
                key_of = len(content["annotations"]) + 1
                entry = annotation(key_of, image["id"], label, mask, synthetic=True, object=key)
                content["annotations"].append(entry)
                fact = {"class": source.classes[label], "object": key, "annotation": key_of, "visible": visible}
                objects.append(fact)
                made[label] += 1
            clean += not objects
            facts = {"file_name": name, "base": base.name, "objects": objects, "seed": image_seed, "synthetic": True}
            lines.append(json.dumps({**facts, **provenance}))
        counted = {name: made[label] for label, name in enumerate(source.classes)}
        content["info"] |= {"images": len(lines), "clean_images": clean, "objects": counted}
        content["info"] |= {"labels": labels, "invisible_labels": invisible}
        text = "\n".join(lines) + "\n"
        write_whole(part / "provenance.jsonl", text)
        write_whole(part / ANNOTATIONS, json.dumps(content))
    return Path(out) / ANNOTATIONS


def placements(
    source: Source,
    count: int | Mapping[int, int],
    seed: int,
    made: Mapping[int, int] | None = None,
    kept: Sized | None = None,
) -> Iterator[tuple[Path, Placement, int]]:
    """The base, what is placed on it, and a seed for each image.

    Args:
        source, count, seed: see `write_augmented`.
        made, kept: objects by class, and images, that the caller has taken so far, if not all that came.

    Raises:
        UserError: see `write_augmented`.
    """
    wanted = dict(count) if isinstance(count, Mapping) else {}
    so_far: Mapping[int, int] = {} if made is None else made
    if wanted and source.clean >= 1 or (min(wanted.values(), default=1) if wanted else count) < 1:  # type: ignore[operator]
        raise UserError("--count needs 1 or more of each, and objects need a --clean below 1.")
    for label in wanted if source.like else ():
        if not source.like.holding({label: 1}):  # type: ignore[union-attr]
            raise UserError(f"No training tile has an object of class {source.classes[label]}; choose another class.")
    if source.like and not source.like.holding({}):
        raise UserError("No training tile has an object; prepare a data set whose training images have some.")
    drawn, taken = 0, 0
    while (
        taken < count if isinstance(count, int) else any(so_far.get(label, 0) < most for label, most in wanted.items())
    ):
        own = np.random.default_rng([seed, drawn])
        base = source.bases[int(own.integers(len(source.bases)))]
        # so that of any number of images the share is met, and whether image i is clean depends on i alone
        if int((taken + 1) * source.clean) > int(taken * source.clean):
            yield base, Placement(np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0, 3), np.uint8)), 0
        else:
            left = {label: most - so_far.get(label, 0) for label, most in wanted.items()}
            placement, image_seed = _placed(source, base, left, own), int(own.integers(2**62))
            if not placement.objects:
                raise UserError("No object could be placed; check the object stores of the prepared data set.")
            yield base, placement, image_seed
        drawn += 1
        taken = drawn if kept is None else len(kept)


def _placed(source: Source, base: Path, left: Mapping[int, int], rng: np.random.Generator) -> Placement:
    """Objects on a canvas of the size of `base`: those of a real picture, or what the placer draws."""
    if source.like is None:
        return source.placer.place(rng)
    holding = source.like.holding(left)
    header = read_header(base)
    for _ in range(_TRIES):
        objects = source.like.objects(int(rng.choice(holding)), rng)
        if left:
            seen: Counter[int] = Counter()
            kept = []
            for label, cut in objects:
                seen[label] += 1
                if seen[label] <= left.get(label, 0):
                    kept.append((label, cut))
            objects = kept
        placement = source.placer.place_all(objects, (header.height, header.width), rng)
        if placement.objects:
            break
    return placement


def _copy(real: LineSet, folder: Path, content: dict[str, Any]) -> None:
    """Put the pictures of `real` into `folder`, and what is in them into `content`, marked as not synthetic."""
    own = coco_content(real)
    if own["categories"] != content["categories"]:
        raise UserError(f"{real.folder} has the classes {real.classes}, not those of the objects; copy another set.")
    for record in real.store:
        target = folder / safe_path(record["img"])
        if target.name.startswith(_PREFIX):
            raise UserError(f"{real.folder} holds {record['img']}, a name of synthetic images; copy a real set.")
        target.parent.mkdir(parents=True, exist_ok=True)
        with as_user_error(f"{real.path(record)} cannot be copied", "prepare it again", OSError):
            shutil.copyfile(real.path(record), target)
    for kind in ("images", "annotations"):
        content[kind] = [{**entry, "synthetic": False} for entry in own[kind]]
