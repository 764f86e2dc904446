"""What a detector says of each car: asked now, or recorded before."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from fvcore.common.config import CfgNode

from car_gan.pictures import Colour
from car_gan.scenes.scene import Box, SceneObject
from gan_plugin.errors import UserError, as_user_error

from .filters import green_sample

RUN_ON = ("green", "scene")


@dataclass(frozen=True)
class Detection:
    """A predicted box of the category, clipped to the picture, and its confidence in [0, 1]."""

    box: Box
    score: float

    def to_dict(self) -> dict[str, Any]:
        """As a file of recorded scores holds it."""
        return asdict(self)


class Judge(Protocol):
    """Says what it thinks of the cars of a scene."""

    def __call__(
        self, scene: str, image: np.ndarray, objects: Sequence[SceneObject], keys: Sequence[str]
    ) -> list[Detection | None]:
        """For each car its detection, None where nothing of the category was detected."""
        ...


class Detector:
    """A Detectron2 model, built when it is first asked, so that each process has its own."""

    def __init__(
        self, config: str, weights: str, category: str, class_index: int, run_on: str, min_iou: float, key: Colour
    ) -> None:
        self._config, self._weights, self._category, self._class = config, weights, category, class_index
        self._on_scene, self._min_iou, self._key = run_on == "scene", min_iou, key
        self._predictor: Any = None
        if class_index < 0:
            # said before the first scene, which may show none
            self._class = _class_index(_config(config, weights), category)

    def __call__(
        self, scene: str, image: np.ndarray, objects: Sequence[SceneObject], keys: Sequence[str]
    ) -> list[Detection | None]:
        if self._on_scene:
            return match(self._predict(image), [thing.box for thing in objects], self._min_iou) if objects else []
        found = []
        for thing in objects:
            sample = green_sample(image, thing.full_mask(image.shape[:2]), self._key)
            found.append(max(self._predict(sample), key=lambda detection: detection.score, default=None))
        return found

    def _predict(self, pixels: np.ndarray) -> list[Detection]:
        if self._predictor is None:
            self._predictor, self._class = _load(self._config, self._weights, self._category, self._class)
        # Detectron2's predictors take BGR
        found = self._predictor(np.ascontiguousarray(pixels[..., ::-1]))["instances"].to("cpu")
        chosen = (found.pred_classes == self._class).numpy()
        boxes, scores = found.pred_boxes.tensor.numpy()[chosen], found.scores.numpy()[chosen]
        return [Detection(tuple(map(float, box)), float(s)) for box, s in zip(boxes, scores, strict=True)]  # type: ignore[arg-type]


def _load(config: str, weights: str, category: str, class_index: int) -> tuple[Any, int]:
    from detectron2.engine import DefaultPredictor

    cfg = _config(config, weights)
    index = class_index if class_index >= 0 else _class_index(cfg, category)
    # the download and the checkpoint readers raise nearly anything
    with as_user_error(
        f"The detector's weights {cfg.MODEL.WEIGHTS or '(none)'} cannot be loaded",
        "set DETECTOR.WEIGHTS to a checkpoint on this machine, or DETECTOR.RECORDED to recorded scores",
        Exception,
    ):
        return DefaultPredictor(cfg), index


def _config(config: str, weights: str) -> CfgNode:
    import argparse

    from detectron2 import model_zoo

    from gan_plugin.engine.setup import load_config

    options = ["MODEL.WEIGHTS", weights] if weights else []
    if not os.path.isfile(config):
        with as_user_error(
            f"DETECTOR.CONFIG {config} is neither a file nor in Detectron2's model zoo",
            'name one of them, or set it to "" for no detector',
            RuntimeError,
        ):
            path = model_zoo.get_config_file(config)
            options = options or ["MODEL.WEIGHTS", model_zoo.get_checkpoint_url(config)]
        config = path
    return load_config(argparse.Namespace(config_file=config, opts=options))


def _class_index(cfg: CfgNode, category: str) -> int:
    from detectron2.data import MetadataCatalog

    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    known = [list(MetadataCatalog.get(name).get("thing_classes", [])) for name in names]
    classes = next((found for found in known if found), [])
    if category not in classes:
        raise UserError(
            f"The detector's data sets ({', '.join(names) or 'none'}) have no class '{category}' "
            f"({', '.join(classes) or 'no class names'}); set DETECTOR.CLASS to its index."
        )
    return classes.index(category)


def match(found: Sequence[Detection], boxes: Sequence[Box], least_iou: float) -> list[Detection | None]:
    """Give each detection, the surest first, to the box it overlaps most, one to one; None for boxes left over."""
    free = dict(enumerate(boxes))
    matched: list[Detection | None] = [None] * len(boxes)
    for detection in sorted(found, key=lambda d: -d.score):
        best = max(free, key=lambda index: iou(detection.box, free[index]), default=None)
        if best is not None and iou(detection.box, free[best]) >= least_iou:
            matched[best] = detection
            del free[best]
    return matched


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0 for boxes without area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


class RecordedScores:
    """Detections from a file: {"scores": {"<scene>#<number>": {"box": [x0, y0, x1, y1], "score": s} or null}}."""

    def __init__(self, path: str | Path) -> None:
        """
        Raises:
            UserError: the file is missing or not of that form.
        """
        self._path = path
        try:
            # bytes, because a spreadsheet or an editor may have put a byte order mark before them
            content = json.loads(Path(path).read_bytes())["scores"]
            self._scores = {key: entry and _recorded(path, key, entry) for key, entry in content.items()}
        except OSError as error:
            raise UserError(f"The recorded scores {path} cannot be read ({error.strerror}); check the path.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} holds no recorded scores ({error!r}); see projects/CarGAN/README.md.") from error

    def __call__(
        self, scene: str, image: np.ndarray, objects: Sequence[SceneObject], keys: Sequence[str]
    ) -> list[Detection | None]:
        missing = [key for key in keys if key not in self._scores]
        if missing:
            raise UserError(
                f"{self._path} has no score for {missing[0]}; record it with the same source and the same filters, or "
                "fewer."
            )
        return [self._scores[key] for key in keys]


def _recorded(path: str | Path, key: str, entry: dict[str, Any]) -> Detection:
    x0, y0, x1, y1 = box = tuple(map(float, entry["box"]))
    score = float(entry["score"])
    if not (all(map(math.isfinite, box)) and 0 <= score <= 1):
        raise ValueError(f"{key}: box {box} and score {score} are no [x0, y0, x1, y1] and share")
    if x0 >= x1 or y0 >= y1:
        raise UserError(
            f"{path}: the box of {key}, {list(box)}, has no area; write null there for a car that was not detected."
        )
    return Detection((x0, y0, x1, y1), score)
