"""One scene's cars: asked, filtered, cut out and written."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from PIL import Image

from car_gan.colour import PICTURES, checked_colour
from car_gan.scenes.scene import Scene, SceneFile, SceneObject, SceneSource
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from .detections import RUN_ON, Detection, Detector, Judge, RecordedScores
from .filters import FILTER_VERSION, cut_share, drop_before_detection, facts_of, sharpness
from .render import MODES, crop_box, draw_sample

CROPS = PICTURES[0]
_ADVICE = "Choose another --output, or free some disk space."


def judge_of(cfg: CfgNode) -> Judge | None:
    """Who says how sure a car is: recorded scores, a detector, or nobody.

    Raises:
        UserError: an option is wrong.
    """
    options = cfg.DETECTOR
    if options.RUN_ON not in RUN_ON:
        raise UserError(f"DETECTOR.RUN_ON is '{options.RUN_ON}'; set it to one of {', '.join(RUN_ON)}.")
    if options.RECORDED:
        return RecordedScores(options.RECORDED)
    if options.CONFIG:
        key = checked_colour(cfg.KEY)
        return Detector(
            options.CONFIG, options.WEIGHTS, cfg.CATEGORY, options.CLASS, options.RUN_ON, options.MIN_IOU, key
        )
    return None


class Cutter:
    """Cuts the cars out of one scene."""

    def __init__(self, source: SceneSource, cfg: CfgNode, crops: Path) -> None:
        """
        Raises:
            UserError: an option is wrong.
        """
        for key, value, known in (("MODE", cfg.MODE, MODES), ("BOX", cfg.BOX, ("predicted", "truth"))):
            if value not in known:
                raise UserError(f"{key} is '{value}'; set it to one of {', '.join(known)}.")
        self._source, self._cfg, self._crops = source, cfg, crops
        self._key, self._judge = checked_colour(cfg.KEY), judge_of(cfg)
        if self._judge is None and cfg.BOX == "predicted":
            raise UserError(
                "BOX is predicted, which takes DETECTOR.CONFIG or DETECTOR.RECORDED; give one, or set BOX truth."
            )

    def __call__(self, file: SceneFile) -> dict[str, Any]:
        """Write the crops of a scene and return its lines of the manifest, dropped cars and scores.

        Raises:
            UserError: the picture or its annotation is broken.
        """
        scene = self._source.load(file)
        broken = [sentence for label, sentence in scene.broken if label == self._cfg.CATEGORY]
        if broken and not self._cfg.SKIP_BROKEN:
            raise UserError(f"{broken[0]} Mend it, or set SKIP_BROKEN True to drop and count such cars.")
        dropped = [{"scene": file.name, "reason": "broken", "note": sentence} for sentence in broken]
        wanted = [thing for thing in scene.objects if thing.label == self._cfg.CATEGORY]
        needed = any(not thing.group for thing in wanted)
        image = read_rgb(file.image, scene.shape[::-1]) if needed else np.empty((0, 0, 3))
        asked = []
        for thing in wanted:
            reason = self._drop_unseen(thing, scene)
            if reason:
                dropped.append(self._dropped(file, thing, reason))
            else:
                asked.append(thing)
        keys = [f"{file.name}#{thing.number}" for thing in asked]
        found = self._judge(file.name, image, asked, keys) if self._judge else [None] * len(asked)
        kept = []
        for thing, detection in zip(asked, found, strict=True):
            line, reason = self._cut(file, image, thing, scene, detection)
            if reason:
                dropped.append(self._dropped(file, thing, reason, detection))
            else:
                kept.append(line)
        scores = {k: d and d.to_dict() for k, d in zip(keys, found, strict=True)} if self._judge else {}
        return {"scene": file.name, "kept": kept, "dropped": dropped, "scores": scores}

    def _drop_unseen(self, thing: SceneObject, scene: Scene) -> str | None:
        if thing.group:
            return "group"
        if not thing.area:
            return "hidden"
        return drop_before_detection(facts_of(thing, scene.shape), self._cfg.FILTER)

    def _dropped(
        self, file: SceneFile, thing: SceneObject, reason: str, detection: Detection | None = None
    ) -> dict[str, Any]:
        line: dict[str, Any] = {"scene": file.name, "instance": thing.number, "reason": reason, "box_truth": thing.box}
        return line | {"image": str(file.image), "visible": round(thing.visible, 4)} | _judged(detection)

    def _cut(
        self, file: SceneFile, image: np.ndarray, thing: SceneObject, scene: Scene, detection: Detection | None
    ) -> tuple[dict[str, Any], str | None]:
        """The manifest line of a car whose crop is written, or the reason why there is none."""
        cfg = self._cfg
        if self._judge and detection is None:
            return {}, "undetected"
        # "at least" (section 2): a confidence of 0.9 counts, which as a model's 32-bit number is below Python's
        if detection and np.float32(detection.score) < np.float32(cfg.DETECTOR.MIN_SCORE):
            return {}, "score"
        predicted = detection.box if detection and cfg.BOX == "predicted" else thing.box
        box = crop_box(predicted, cfg.PAD, cfg.SQUARE)
        lost = cut_share(thing, box) if not cfg.MODE.endswith("full") else 0.0
        if 0 < cfg.FILTER.MAX_CUT < lost or lost == 1:
            return {}, "cut"
        sharp = sharpness(image, thing)
        if sharp < cfg.FILTER.MIN_SHARPNESS:
            return {}, "sharpness"
        name = f"{file.name.replace('/', '_')}_{thing.number:03d}.png"
        picture = draw_sample(image, thing.full_mask(scene.shape), box, cfg.MODE, self._key)
        write_whole(self._crops / name, lambda f: Image.fromarray(picture).save(f, "PNG"), _ADVICE)
        facts = facts_of(thing, scene.shape)
        line = {
            "file": f"{CROPS}/{name}",
            "source": self._source.title,
            "source_image": file.name,
            "image": str(file.image),
            "city": file.city,
            "label": thing.label,
            "instance": thing.number,
            "mode": cfg.MODE,
            "key": self._key,
            "box_truth": thing.box,
            "box_crop": box,
            **_judged(detection),
            **{name: round(value, 4) for name, value in asdict(facts).items()},
            "truncated": facts.border <= 0,
            "sharpness": round(sharp, 6),
            "cut": round(lost, 4),
            "filter_version": FILTER_VERSION,
            "licence": self._source.licence,
        }
        return line, None


def _judged(detection: Detection | None) -> dict[str, Any]:
    return {"box_detected": detection and detection.box, "detector_score": detection and detection.score}
