"""Scenes with new cars, and COCO JSON that Detectron2's register_coco_instances loads."""

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from fvcore.common.config import CfgNode as CN
from PIL import Image
from pycocotools import mask as rle_tools

from car_gan.output import PROGRESS, output_folder, work_through
from car_gan.pictures import LICENCE
from car_gan.scenes.scene import Scene, SceneFile, SceneObject, SceneSource, check_category, digest
from gan_plugin.config_files import flat
from gan_plugin.data.masks import mask_to_polygons
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.rules import FREE, SHARE, Keys, between, check_keys, defaults_of, one_of, rules_of, series, whole

from .place import Ground, find_place, fit_ground, paste
from .samples import SampleBank

FORMS = ("polygon", "rle")
IMAGES = "images"
# samples that are looked at for one car before the scene is given up
_MOST_SAMPLES = 5
ANNOTATIONS, PROVENANCE, SUMMARY = "annotations.json", "provenance.jsonl", "summary.json"
_GROUND = "ground.json"
_REASONS = {
    "empty": "there was no car in the sample",
    "full": "the sample had no key colour around the car",
    "fuzzy": "the car was half transparent",
    "no place": "the scene had no place for the car",
}
# pictures whose brightness stands for the set's
_BRIGHTNESS_OF = 20


_COUNTS = series(
    whole(1),
    lambda counts: len(counts) == 2 and counts[0] <= counts[1],
    "the fewest and the most cars, such as (1, 3)",
)
KEYS: Keys = {
    "SEED": (0, FREE),
    # what the samples are, as one of the scenes' classes
    "CATEGORY": ("car", FREE),
    # of Cityscapes
    "SPLITS": (("train",), FREE),
    # the share of the scenes that get new cars; the others go into the export as they are
    "MIX": (0.5, between(0, 1, "a share")),
    # cars that such a scene gets, at least and at most; fewer where there is no room
    "CARS": ((1, 3), _COUNTS),
    # "polygon" works with both values of INPUT.MASK_FORMAT, "rle" is shorter and takes bitmask
    "SEGMENTATION": ("polygon", one_of(*FORMS)),
    "MATTING": {
        # the colour that the samples lie on; () for what is noted beside them, or else the source document's green
        "KEY": ((), FREE),
        # alpha from here to there is stretched to 0 to 1; what a GAN draws is never exactly the key colour
        "LOW": (0.1, FREE),
        "HIGH": (0.9, FREE),
        # a sample is left out if the car covers less or more of its picture than these shares
        "MIN_COVER": (0.08, SHARE),
        "MAX_COVER": (0.98, SHARE),
        # or if more than this share of the car is half transparent
        "MAX_FUZZY": (0.5, SHARE),
    },
    "PLACE": {
        # scenes from which the size of a car at each distance is learnt
        "FIT_SCENES": (300, whole(1)),
        "TRIES": (40, whole(1)),
        # pixels
        "MIN_HEIGHT": (12, FREE),
        # how much a sample may be enlarged
        "MAX_ENLARGE": (2.0, FREE),
        # the least share of a new car that nearer objects leave free
        "MIN_VISIBLE": (0.4, SHARE),
        # the largest share of an annotated object that a new car may hide
        "MAX_HIDE": (0.6, SHARE),
        # the largest share of the ground under a new car that may already be taken
        "MAX_OVERLAP": (0.1, SHARE),
        # where the road is known: the least share of the car's base that is on it
        "ON_ROAD": (0.9, SHARE),
    },
    "LOOK": {
        # darkness of the shadow under the car, 0 to 1
        "SHADOW": (0.5, SHARE),
        # how far the car follows the brightness of its scene, 0 to 1
        "LIGHT": (0.7, SHARE),
    },
}


def compose_defaults() -> CN:
    """The defaults. 0 switches an effect off."""
    return CN(defaults_of(KEYS))


def annotations_of(scene: Scene, categories: Mapping[int, str], form: str) -> list[dict[str, Any]]:
    """The annotations of a scene, without "id" and "image_id".

    Args:
        scene: whose objects without a seen pixel are left out.
        categories: id -> label; objects of other labels are left out.
        form: "polygon" or "rle" of "segmentation"; groups are always RLE, with "iscrowd" 1.

    Returns:
        COCO's keys and "synthetic", 1 for pasted objects and 0 for annotated ones. "area" is the number of the mask's
        pixels, and the rasterised segmentation has exactly these pixels.
    """
    ids = {label: number for number, label in categories.items()}
    return [
        _annotation(thing, scene.shape, ids[thing.label], form)
        for thing in scene.objects
        if thing.label in ids and thing.area
    ]


def _annotation(thing: SceneObject, shape: tuple[int, int], category: int, form: str) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    return {
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": thing.area,
        "iscrowd": int(thing.group),
        "segmentation": _rle(thing, shape) if thing.group or form == "rle" else _polygons(thing),
        "synthetic": int(thing.synthetic),
    }


def _polygons(thing: SceneObject) -> list[list[float]]:
    x, y = thing.corner
    shift = np.array((x, y), float)
    return [(np.reshape(part, (-1, 2)) + shift).ravel().tolist() for part in mask_to_polygons(thing.mask)]


def _rle(thing: SceneObject, shape: tuple[int, int]) -> dict[str, Any]:
    encoded = rle_tools.encode(np.asfortranarray(thing.full_mask(shape).astype(np.uint8)))
    return {"size": list(map(int, encoded["size"])), "counts": encoded["counts"].decode()}


def coco_file(
    images: Sequence[dict[str, Any]],
    annotations: Sequence[Sequence[dict[str, Any]]],
    categories: Mapping[int, str],
    info: dict[str, Any],
) -> dict[str, Any]:
    """The whole file: ids from 1 for images and annotations.

    Args:
        images: "file_name", "height", "width" and whatever else is known of each.
        annotations: of each image.
        categories: id -> name.
        info: of the data set.
    """
    numbered = [{"id": index, **image} for index, image in enumerate(images, start=1)]
    every = [
        {"image_id": image["id"], **annotation}
        for image, of_image in zip(numbered, annotations, strict=True)
        for annotation in of_image
    ]
    return {
        "info": info,
        "licenses": [{"id": 1, "name": info["licence"], "url": ""}],
        "images": [{**image, "license": 1} for image in numbered],
        "annotations": [{"id": index, **annotation} for index, annotation in enumerate(every, start=1)],
        "categories": [{"id": number, "name": name} for number, name in sorted(categories.items())],
    }


@dataclass(frozen=True)
class Job:
    """A scene, and whether it gets cars."""

    file: SceneFile
    composed: bool


class Composer:
    """Does one job after another; what it does depends on the options and the scene's name alone."""

    def __init__(
        self, source: SceneSource, bank: SampleBank | None, ground: Ground | None, cfg: CfgNode, output: Path
    ) -> None:
        """
        Args:
            source: the scenes.
            bank, ground: the cars and their sizes; None if no job is composed.
            cfg: see `compose_defaults`.
            output: the folder that gets images/*.
        """
        self._source, self._bank, self._ground, self._cfg, self._output = source, bank, ground, cfg, output

    def __call__(self, job: Job) -> dict[str, Any]:
        """Write the picture, and return its line: "image", "annotations", "pasted" and "refused" (reason -> times).

        Raises:
            UserError: the picture, its annotation or a sample is broken.
        """
        scene = self._source.load(job.file)
        pasted: list[dict[str, Any]] = []
        refused: dict[str, int] = {}
        stem = job.file.name.replace("/", "_")
        if job.composed and self._bank and self._ground:
            image = read_rgb(job.file.image, scene.shape[::-1])
            picture, scene, pasted, refused = self._add_cars(image, scene, job.file, self._bank, self._ground)
        if pasted:
            name = f"{IMAGES}/{stem}.png"
            write_whole(self._output / name, lambda f: Image.fromarray(picture).save(f, "PNG"))
        else:
            name = f"{IMAGES}/{stem}{job.file.image.suffix}"
            with open(job.file.image, "rb") as original:
                write_whole(self._output / name, lambda f: shutil.copyfileobj(original, f))
        image_line = {
            "file_name": name,
            "height": scene.shape[0],
            "width": scene.shape[1],
            "source_image": job.file.name,
            "synthetic": len(pasted),
        }
        truth = annotations_of(scene, self._source.categories, self._cfg.SEGMENTATION)
        return {"image": image_line, "annotations": truth, "pasted": pasted, "refused": refused}

    def _add_cars(
        self, image: np.ndarray, scene: Scene, file: SceneFile, bank: SampleBank, ground: Ground
    ) -> tuple[np.ndarray, Scene, list[dict[str, Any]], dict[str, int]]:
        cfg, rng = self._cfg, np.random.default_rng([self._cfg.SEED, zlib.crc32(file.name.encode())])
        horizon = ground.horizon_of(scene, cfg.CATEGORY)
        gain = float(np.clip(image.mean() / ground.brightness, 0.4, 2.5)) ** cfg.LOOK.LIGHT
        picture = image.astype(np.float32)
        pasted: list[dict[str, Any]] = []
        refused: dict[str, int] = {}
        for _ in range(int(rng.integers(cfg.CARS[0], cfg.CARS[1] + 1))):
            for _ in range(_MOST_SAMPLES):
                sprite = bank.sprite(int(rng.integers(len(bank))))
                if isinstance(sprite, str):
                    refused[sprite] = refused.get(sprite, 0) + 1
                    continue
                placement = find_place(scene, sprite, ground, horizon, cfg.PLACE, rng)
                if placement is None:
                    refused["no place"] = refused.get("no place", 0) + 1
                    continue
                picture, scene = paste(picture, scene, placement, cfg.CATEGORY, cfg.LOOK, gain)
                pasted.append({
                    "scene": file.name,
                    "sample": sprite.name,
                    "corner": placement.corner,
                    "size": placement.sprite.alpha.shape[::-1],
                    "base": round(placement.base, 2),
                    "visible": round(float(placement.seen.sum() / (placement.sprite.alpha >= 0.5).sum()), 4),
                })  # fmt: skip
                break
        return np.rint(picture).clip(0, 255).astype(np.uint8), scene, pasted, refused


def compose(
    source: SceneSource, samples: Path | None, cfg: CfgNode, output: Path, *, workers: int = 0
) -> dict[str, Any]:
    """Compose scenes in `output`; a call that was interrupted is continued.

    Args:
        source: the scenes.
        samples: see `SampleBank`; None if MIX is 0, which gives the scenes as they are in COCO's format.
        cfg: see `compose_defaults`.
        output: gets images/*, annotations.json, provenance.jsonl, summary.json and a note on the terms.
        workers: processes; 0 works in this one.

    Returns:
        What summary.json holds.

    Raises:
        UserError: an option, a path or a picture is wrong, or no car found a place.
    """
    check_keys(cfg, rules_of(KEYS))
    check_category(cfg.CATEGORY, source.categories.values())
    if cfg.MIX and samples is None:
        raise UserError("--samples is missing; name the generated cars, or set MIX 0 for the scenes as they are.")
    bank = SampleBank(samples, cfg.MATTING) if cfg.MIX and samples else None
    files = source.files()
    settings = {
        "command": "compose",
        "source": source.title,
        "place": source.place,
        "scenes": digest(files),
        "samples": [str(samples), len(bank)] if bank else [],
        **flat(cfg),
    }
    with output_folder(output, settings, prepared=_GROUND):
        (output / IMAGES).mkdir(exist_ok=True)
        ground = _ground(source, files, cfg, output) if bank else None
        composer = Composer(source, bank, ground, cfg, output)
        jobs = choose_scenes(files, cfg.MIX, cfg.SEED)
        results = list(work_through(jobs, composer, output / PROGRESS, workers=workers, title="compose"))
        summary = _save(results, source, cfg.CATEGORY, samples, output)
    if not summary["synthetic"] and cfg.MIX:
        refused = ", ".join(f"{_REASONS[reason]} {count} times" for reason, count in summary["refused"].items())
        raise UserError(
            f"No car found a place in {len(files)} scenes: {refused or 'all of MIX and CARS came to none'}; use other "
            "samples, or loosen PLACE or MATTING."
        )
    return summary


def choose_scenes(files: Sequence[SceneFile], mix: float, seed: int) -> list[Job]:
    """Which scenes get cars: round(`mix` * all) of them, drawn by `seed`."""
    drawn = np.random.default_rng(seed).permutation(len(files))[: round(mix * len(files))]
    chosen = set(drawn.tolist())
    return [Job(file, index in chosen) for index, file in enumerate(files)]


def _ground(source: SceneSource, files: Sequence[SceneFile], cfg: CfgNode, output: Path) -> Ground:
    known = output / _GROUND
    if known.is_file():
        return Ground(**json.loads(known.read_text(encoding="utf-8")))
    drawn = np.random.default_rng(cfg.SEED).permutation(len(files))[: cfg.PLACE.FIT_SCENES]
    scenes = [source.load(files[index]) for index in drawn]
    pairs = list(zip(drawn, scenes, strict=True))[:_BRIGHTNESS_OF]
    brightness = float(np.mean([read_rgb(files[index].image, scene.shape[::-1]).mean() for index, scene in pairs]))
    ground = fit_ground(scenes, max(1.0, brightness), cfg.CATEGORY)
    write_whole(known, json.dumps(ground.to_dict()))
    return ground


def _save(
    results: Sequence[dict[str, Any]], source: SceneSource, category: str, samples: Path | None, output: Path
) -> dict[str, Any]:
    info = {"description": f"Scenes of {source.title} with generated cars", "licence": source.licence}
    content = coco_file(
        [result["image"] for result in results], [r["annotations"] for r in results], source.categories, info
    )
    refused: Counter[str] = Counter()
    for result in results:
        refused.update(result["refused"])
    ids = {entry["id"] for entry in content["categories"] if entry["name"] == category}
    of_class = [line for line in content["annotations"] if line["category_id"] in ids and not line["iscrowd"]]
    pasted = [line for result in results for line in result["pasted"]]
    real = sum(not line["synthetic"] for line in of_class)
    summary = {
        "images": len(results),
        "composed": sum(bool(result["pasted"]) for result in results),
        "synthetic": len(pasted),
        "annotated": real,
        "share": round(len(pasted) / (len(pasted) + real), 4) if pasted else 0.0,
        "refused": dict(refused),
        "samples": str(samples or ""),
        "source": source.title,
        "licence": source.licence,
    }
    write_whole(output / ANNOTATIONS, json.dumps(content))
    write_whole(output / PROVENANCE, "".join(json.dumps(line) + "\n" for line in pasted))
    write_whole(output / SUMMARY, json.dumps(summary, indent=1))
    write_whole(output / LICENCE, source.licence + "\n")
    return summary
