"""Synthetic training images with their labels, by the generator or by one of two baselines."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coigan.data.coco_json import annotation, categories_of, coco_content
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet
from coigan.data.placer import Placement, Placer
from coigan.poisson import poisson_blend
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

ANNOTATIONS = "annotations.json"
_PREFIX = "aug_"
# what has to be looked up before images are passed on
TERMS = (
    {
        "name": "source images",
        "note": "base images and objects keep their data set's terms (Severstal: Kaggle's rules)",
    },
    {"name": "LaMa", "note": "architecture of the generator, Apache-2.0", "url": "https://github.com/advimman/lama"},
    {"name": "perceptual weights", "note": "where training used them: the terms of ADE20K's or ImageNet's weights"},
)
_ADVICE = "Free some disk space, or choose another folder."
# base image, what was placed, and a seed -> the image with defects
Paint = Callable[[np.ndarray, Placement, int], np.ndarray]


@dataclass(frozen=True)
class Source:
    """Where the pictures and the masks come from.

    Attributes:
        bases: defect-free images.
        placer: chooses and places the masks.
        classes: names of the classes.
    """

    bases: list[Path]
    placer: Placer
    classes: tuple[str, ...]


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


def write_augmented(
    out: str | Path,
    source: Source,
    paint: Paint,
    count: int,
    seed: int,
    provenance: Mapping[str, Any],
    real: LineSet | None = None,
) -> Path:
    """Write `count` synthetic images and their labels: images/aug_<i>.png, annotations.json, provenance.jsonl.

    Every object that was placed is labelled, however small, with its exact mask as run lengths, so that Detectron2's
    `register_coco_instances` reads the JSON (with INPUT.MASK_FORMAT bitmask). Image i depends on the seed and i alone.
    Every image and annotation says whether it is synthetic; provenance.jsonl has a line for each synthetic image, with
    the ids of its annotations, which hold the masks that the painter was given.

    Args:
        out: a folder that does not exist yet or is empty.
        source: of images and masks.
        paint: makes the picture.
        count: 1 or more.
        seed: of all choices.
        provenance: what is the same for all images, such as the weights' hash.
        real: annotated images to copy before the synthetic ones, so that the result is a whole training set.

    Returns:
        The path of annotations.json.

    Raises:
        UserError: `out` holds files, there is no base image, nothing could be placed, or `real` has other classes, a
            missing image or one with the name of a synthetic one.
    """
    target = Path(out)
    if count < 1:
        raise UserError(f"--count is {count}; set it to 1 or more.")
    if not source.bases:
        raise UserError("There is no base image without defects; prepare the data set again.")
    if target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target} holds files; choose another --out.")
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    content: dict[str, Any] = {
        "info": {"description": "synthetic defects", "synthetic": True, **provenance},
        "licenses": [{"id": number, **terms} for number, terms in enumerate(TERMS, start=1)],
        "categories": categories_of(source.classes),
        "images": [],
        "annotations": [],
    }
    if real is not None:
        _copy(real, part / "images", content)
    lines = []
    for number in range(count):
        own = np.random.default_rng([seed, number])
        base = source.bases[int(own.integers(len(source.bases)))]
        placement, image_seed = source.placer.place(own), int(own.integers(2**62))
        if not placement.objects:
            raise UserError("No object could be placed; check the object stores of the prepared data set.")
        picture = paint(read_rgb(base), placement, image_seed)
        name = f"{_PREFIX}{number:06d}.png"
        write_png(part / "images" / name, picture)
        height, width = picture.shape[:2]
        image = {"id": len(content["images"]) + 1, "file_name": name, "height": height, "width": width}
        content["images"].append({**image, "synthetic": True})
        objects = []
        for label, mask, key in placement.objects:
            made = annotation(len(content["annotations"]) + 1, image["id"], label, mask, synthetic=True, object=key)
            content["annotations"].append(made)
            objects.append({"class": source.classes[label], "object": key, "annotation": made["id"]})
        facts = {"file_name": name, "base": base.name, "objects": objects, "seed": image_seed, "synthetic": True}
        lines.append(json.dumps({**facts, **provenance}))
    text = "\n".join(lines) + "\n"
    write_whole(part / "provenance.jsonl", lambda file: file.write(text.encode()), _ADVICE)
    write_whole(part / ANNOTATIONS, lambda file: file.write(json.dumps(content).encode()), _ADVICE)
    shutil.rmtree(target, ignore_errors=True)
    part.replace(target)
    return target / ANNOTATIONS


def _copy(real: LineSet, folder: Path, content: dict[str, Any]) -> None:
    """Put the pictures of `real` into `folder`, and what is in them into `content`, marked as not synthetic."""
    own = coco_content(real)
    if own["categories"] != content["categories"]:
        raise UserError(f"{real.folder} has the classes {real.classes}, not those of the objects; copy another set.")
    for record in real.store:
        target = folder / record["img"]
        if target.name.startswith(_PREFIX):
            raise UserError(f"{real.folder} holds {record['img']}, a name of synthetic images; copy a real set.")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(real.path(record), target)
        except OSError as error:
            raise UserError(f"{real.path(record)} cannot be copied ({error.strerror}); prepare it again.") from error
    for kind in ("images", "annotations"):
        content[kind] = [{**entry, "synthetic": False} for entry in own[kind]]
