"""The data set builder: one picture for each car of each scene that passes the filters (section 2)."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode
from fvcore.common.config import CfgNode as CN
from PIL import Image

from car_gan.output import PROGRESS, output_folder, work_through
from car_gan.pictures import GREEN, LICENCE, MANIFEST, PICTURES, checked_colour
from car_gan.scenes.scene import Scene, SceneFile, SceneObject, SceneSource, check_category, digest
from gan_plugin.config_files import flat
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.rules import AMOUNT, FREE, SWITCH, Keys, check_keys, defaults_of, one_of, rules_of

from .detections import RUN_ON, Detection, Detector, Judge, RecordedScores
from .filters import (
    FILTER_VERSION,
    MODES,
    REASONS,
    crop_box,
    cut_share,
    draw_sample,
    drop_before_detection,
    facts_of,
    sharpness,
)

CROPS = PICTURES[0]
DROPPED, SCORES, FUNNEL = "dropped.jsonl", "scores.json", "funnel.json"


KEYS: Keys = {
    # green_crop | rgba_crop | green_full | rgba_full | context; see MODES in car_gan/crops/filters.py
    "MODE": ("green_crop", one_of(*MODES)),
    "CATEGORY": ("car", FREE),
    # red, green, blue of every pixel outside the car
    "KEY": (GREEN, FREE),
    # of Cityscapes
    "SPLITS": (("train", "val", "test"), FREE),
    # the crop: the detector's box ("predicted") or the one around the mask ("truth")
    "BOX": ("predicted", one_of("predicted", "truth")),
    # widen it on each side by this share of its longer side
    "PAD": (0.0, AMOUNT),
    # widen its shorter side to the longer one; what lies outside of the image is the key colour
    "SQUARE": (False, SWITCH),
    # an object whose mask is unusable is dropped and counted; otherwise the build ends with a sentence
    "SKIP_BROKEN": (False, SWITCH),
    "DETECTOR": {
        # a YAML file, or the name of one in Detectron2's model zoo; "" for no detector
        "CONFIG": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml", FREE),
        # a checkpoint; "" for the model zoo's, or else the config's
        "WEIGHTS": ("", FREE),
        # a file of recorded scores to use instead of a detector, such as the scores.json of a former build
        "RECORDED": ("", FREE),
        # the picture it sees: the car alone on the key colour ("green"), or the scene, matched by IoU ("scene")
        "RUN_ON": ("green", one_of(*RUN_ON)),
        # keep a car that is predicted with at least this confidence
        "MIN_SCORE": (0.9, FREE),
        # with RUN_ON scene: the least IoU of the predicted box with the one around the mask
        "MIN_IOU": (0.5, FREE),
        # index of CATEGORY among the detector's classes; -1 looks it up by name
        "CLASS": (-1, FREE),
    },
    "FILTER": {
        # the least share of the outline that is seen (known for Cityscapes, 1 elsewhere)
        "MIN_VISIBLE": (0.0, AMOUNT),
        # the least share of the seen pixels that hang together: a car cut in two by a pole has about 0.5
        "MIN_LARGEST_PART": (0.0, AMOUNT),
        # drop cars whose outline comes within this many pixels of the image's border
        "BORDER": (0, AMOUNT),
        # pixels seen
        "MIN_AREA": (0, AMOUNT),
        # shorter side of the box in pixels
        "MIN_SIDE": (0, AMOUNT),
        # width / height of the box
        "MIN_ASPECT": (0.0, AMOUNT),
        "MAX_ASPECT": (0.0, AMOUNT),
        # variance of the Laplacian inside the car, its longer side scaled to 64 pixels; grey values from 0 to 1
        "MIN_SHARPNESS": (0.0, AMOUNT),
        # the largest share of the car that the crop may cut off (the predicted box may be too small)
        "MAX_CUT": (0.0, AMOUNT),
    },
}


def build_defaults() -> CN:
    """The defaults: the source document's final data set (section 2). 0 or "" switches a filter off."""
    return CN(defaults_of(KEYS))


@dataclass(frozen=True)
class Funnel:
    """Counts of a build; `instances` is `kept` plus all that was dropped.

    Attributes:
        images: scenes walked over.
        empty: scenes without any car, by split or folder.
        instances: annotated cars and groups of cars.
        kept: crops.
        dropped: reason -> cars, in the order in which the reasons are asked; each car counts for its first reason.
    """

    images: int
    empty: dict[str, int]
    instances: int
    kept: int
    dropped: dict[str, int]

    @staticmethod
    def of(scenes: Sequence[str], kept: Sequence[Mapping[str, Any]], dropped: Sequence[Mapping[str, Any]]) -> "Funnel":
        """Count the lines of the manifest and those of the dropped cars, of the scenes named."""
        reasons = Counter(line["reason"] for line in dropped)
        with_cars = {line["source_image"] for line in kept} | {line["scene"] for line in dropped}
        empty = Counter(name.split("/")[0] if "/" in name else "" for name in scenes if name not in with_cars)
        ordered = {reason: reasons[reason] for reason in REASONS if reasons[reason]}
        return Funnel(len(scenes), dict(sorted(empty.items())), len(kept) + len(dropped), len(kept), ordered)

    def to_dict(self) -> dict[str, Any]:
        """As funnel.json holds it."""
        return {
            "images": self.images,
            "images_without_a_car": self.empty,
            "instances": self.instances,
            "kept": self.kept,
            "dropped": self.dropped,
        }

    def rows(self) -> list[tuple[str, int, int]]:
        """What was dropped or kept, how many, and how many were left after it; from the instances to the crops."""
        left, rows = self.instances, [("annotated", self.instances, self.instances)]
        for reason, count in self.dropped.items():
            left -= count
            rows.append((REASONS[reason], -count, left))
        return [*rows, ("kept", self.kept, left)]

    def table(self) -> str:
        """For the terminal: a line for each row."""
        lines = [f"{self.images} images, {sum(self.empty.values())} of them without a car"]
        lines += [f"{count:>8}  {left:>8}  {what}" for what, count, left in self.rows()]
        return "\n".join(lines)

    def sentence(self) -> str:
        """In one line, for an error."""
        parts = [f"{count} dropped because {REASONS[reason]}" for reason, count in self.dropped.items()]
        return f"Of {self.instances} in {self.images} images: {'; '.join(parts) or 'none was annotated'}."


def judge_of(cfg: CfgNode) -> Judge | None:
    """Who says how sure a car is: recorded scores, a detector, or nobody.

    Raises:
        UserError: an option is wrong.
    """
    options = cfg.DETECTOR
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
        check_keys(cfg, rules_of(KEYS))
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
            raise UserError(f"{broken[0]} Correct it, or set SKIP_BROKEN True to drop and count such cars.")
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
        write_whole(self._crops / name, lambda f: Image.fromarray(picture).save(f, "PNG"))
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


def build(source: SceneSource, cfg: CfgNode, output: Path, *, workers: int = 0) -> Funnel:
    """Build the data set of `source` in `output`; a build that was interrupted is continued.

    Args:
        source: the scenes.
        cfg: see `build_defaults`.
        output: gets crops/*.png, manifest.jsonl (a line for each), dropped.jsonl, scores.json, funnel.json.
        workers: processes; 0 works in this one.

    Raises:
        UserError: an option, a path or a picture is wrong, or no car is kept.
    """
    check_category(cfg.CATEGORY, (*source.categories.values(), *source.more))
    cutter = Cutter(source, cfg, output / CROPS)
    files = source.files()
    settings = {"command": "build", "source": source.title, "place": source.place, "scenes": digest(files), **flat(cfg)}
    with output_folder(output, settings):
        (output / CROPS).mkdir(exist_ok=True)
        results = work_through(files, cutter, output / PROGRESS, workers=workers, title="build")
        funnel = _summarise(results, source, output)
    if not funnel.kept:
        raise UserError(
            f"No '{cfg.CATEGORY}' was kept. {funnel.sentence()} Loosen FILTER or DETECTOR, or look at the data."
        )
    return funnel


def _summarise(results: Iterator[dict[str, Any]], source: SceneSource, output: Path) -> Funnel:
    everything = list(results)
    kept = [line for result in everything for line in result["kept"]]
    dropped = [line for result in everything for line in result["dropped"]]
    scores = {key: entry for result in everything for key, entry in result["scores"].items()}
    funnel = Funnel.of([result["scene"] for result in everything], kept, dropped)
    _write_lines(output / MANIFEST, kept)
    _write_lines(output / DROPPED, dropped)
    write_whole(output / FUNNEL, json.dumps(funnel.to_dict(), indent=1))
    write_whole(output / LICENCE, source.licence + "\n")
    if scores:
        write_whole(output / SCORES, json.dumps({"source": source.title, "scores": scores}, indent=0))
    return funnel


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
