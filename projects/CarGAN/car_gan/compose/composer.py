"""One scene with new cars in it, written as a picture and its annotation."""

import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from PIL import Image

from car_gan.scenes.scene import Scene, SceneFile, SceneSource
from gan_plugin.data.pictures import read_rgb
from gan_plugin.files import write_whole

from .coco_truth import annotations_of
from .ground import Ground
from .paste import paste
from .place import find_place
from .samples import SampleBank

IMAGES = "images"
_ADVICE = "Choose another --output, or free some disk space."
# samples that are looked at for one car before the scene is given up
_MOST_SAMPLES = 5


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
            write_whole(self._output / name, lambda f: Image.fromarray(picture).save(f, "PNG"), _ADVICE)
        else:
            name = f"{IMAGES}/{stem}{job.file.image.suffix}"
            with open(job.file.image, "rb") as original:
                write_whole(self._output / name, lambda f: shutil.copyfileobj(original, f), _ADVICE)
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
