"""Scenes with new cars, and COCO JSON that Detectron2's register_coco_instances loads."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fvcore.common.config import CfgNode

from car_gan.journal import work_through
from car_gan.output_folder import PROGRESS, output_folder
from car_gan.scenes.scene import SceneFile, SceneSource, check_category, digest
from gan_plugin.config_files import flat
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from .coco_truth import FORMS, coco_file
from .composer import IMAGES, Composer, Job
from .ground import Ground, fit_ground
from .samples import SampleBank

ANNOTATIONS, PROVENANCE, SUMMARY, LICENCE = "annotations.json", "provenance.jsonl", "summary.json", "LICENCE_NOTE.txt"
_GROUND = "ground.json"
_REASONS = {
    "empty": "there was no car in the sample",
    "full": "the sample had no key colour around the car",
    "fuzzy": "the car was half transparent",
    "no place": "the scene had no place for the car",
}
_ADVICE = "Choose another --output, or free some disk space."
# pictures whose brightness stands for the set's
_BRIGHTNESS_OF = 20


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
    _check(cfg, source)
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


def _check(cfg: CfgNode, source: SceneSource) -> None:
    if not 0 <= cfg.MIX <= 1:
        raise UserError(f"MIX is {cfg.MIX}; set it to a share of the scenes, from 0 to 1.")
    if len(cfg.CARS) != 2 or not 1 <= cfg.CARS[0] <= cfg.CARS[1]:
        raise UserError(f"CARS is {tuple(cfg.CARS)}; set it to the fewest and the most cars, such as (1, 3).")
    if cfg.SEGMENTATION not in FORMS:
        raise UserError(f"SEGMENTATION is '{cfg.SEGMENTATION}'; set it to one of {', '.join(FORMS)}.")
    check_category(cfg.CATEGORY, source.categories.values())


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
    _write(known, json.dumps(ground.to_dict()))
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
    _write(output / ANNOTATIONS, json.dumps(content))
    _write(output / PROVENANCE, "".join(json.dumps(line) + "\n" for line in pasted))
    _write(output / SUMMARY, json.dumps(summary, indent=1))
    _write(output / LICENCE, source.licence + "\n")
    return summary


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()), _ADVICE)
