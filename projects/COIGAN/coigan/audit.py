"""Does a segmenter of real defects see the synthetic ones where their labels say that they are?"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from coigan.augmentation import ANNOTATIONS
from coigan.data.images import safe_path, whole_folder
from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError, as_user_error
from gan_plugin.files import write_whole

AUDIT, PROVENANCE = "audit.json", "provenance.jsonl"
# what is found further from a label than so many pixels is no disagreement about its outline
MARGIN = 8
_BINS = 10
# (H, W, 3) bytes -> (H, W) bool, where it sees a defect
Find = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class AugmentedSet:
    """A set that `write_augmented` wrote.

    Attributes:
        folder: of the set.
        content: of its COCO JSON.
    """

    folder: Path
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Agreement:
    """One synthetic object, seen by the segmenter.

    Attributes:
        annotation, image: their ids.
        category: its id.
        iou: of the label and what is found under or near it, but under no other label, in [0, 1].
        recall: share of the label's pixels that are found.
    """

    annotation: int
    image: int
    category: int
    iou: float
    recall: float


def agreements(found: np.ndarray, masks: Sequence[np.ndarray]) -> list[tuple[float, float]]:
    """IoU and recall of each of an image's labels.

    Args:
        found: (H, W) bool, where the segmenter sees a defect of any class.
        masks: (H, W) bool each, not empty.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MARGIN + 1,) * 2)
    results = []
    for number, mask in enumerate(masks):
        near = cv2.dilate(mask.astype(np.uint8), kernel) > 0
        for other in (*masks[:number], *masks[number + 1 :]):
            near &= ~other | mask
        seen = int((found & mask).sum())
        union = int((mask | (found & near)).sum())
        results.append((seen / union, seen / int(mask.sum())))
    return results


def read_set(folder: str | Path) -> AugmentedSet:
    """The set in `folder`.

    Raises:
        UserError: there is none.
    """
    folder = Path(folder)
    with as_user_error(f"{folder} holds no set of inpaint.py augment ({ANNOTATIONS})", "name such a folder"):
        content = json.loads((folder / ANNOTATIONS).read_text(encoding="utf-8"))
        names = [image["file_name"] for image in content["images"] if image["synthetic"] in (True, False)]
        if any(str(safe_path(name)) != name for name in names):
            raise ValueError("a file_name that leaves the folder")
        content["categories"]
        [(entry["image_id"], entry["category_id"], entry["segmentation"]) for entry in content["annotations"]]
    return AugmentedSet(folder, content)


def audit_set(augmented: AugmentedSet, find: Find) -> list[Agreement]:
    """The agreement of every synthetic object of a set.

    Raises:
        UserError: it has no synthetic object, or a picture of it cannot be read.
    """
    folder, content = augmented.folder, augmented.content
    objects_of: dict[int, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        objects_of.setdefault(entry["image_id"], []).append(entry)
    results = []
    for image in content["images"]:
        objects = objects_of.get(image["id"], [])
        if not image["synthetic"] or not objects:
            continue
        masks = [coco_mask.decode(entry["segmentation"]) > 0 for entry in objects]
        pairs = agreements(find(read_rgb(folder / "images" / image["file_name"])), masks)
        for entry, (iou, recall) in zip(objects, pairs, strict=True):
            results.append(Agreement(entry["id"], image["id"], entry["category_id"], iou, recall))
    if not results:
        raise UserError(f"{folder} holds no synthetic object; name a set that inpaint.py augment has written.")
    return results


def weak_images(results: Sequence[Agreement], least: float) -> set[int]:
    """Ids of the images with an object whose IoU is below `least`: one label that misleads spoils the picture."""
    return {result.image for result in results if result.iou < least}


def summarise(results: Sequence[Agreement], augmented: AugmentedSet, least: float) -> dict[str, Any]:
    """Counts, means and histograms of the IoU, of all objects and of each class's."""
    weak = weak_images(results, least)
    rows = {"all": list(results)}
    for entry in augmented.content["categories"]:
        rows[entry["name"]] = [result for result in results if result.category == entry["id"]]
    images = {result.image for result in results}
    return {
        "least_agreement": least,
        "images": len(images),
        "weak_images": len(weak),
        "margin": MARGIN,
        "classes": {name: _row(own, least) for name, own in rows.items()},
    }


def _row(results: Sequence[Agreement], least: float) -> dict[str, Any]:
    values = [result.iou for result in results]
    counts, _ = np.histogram(values, bins=_BINS, range=(0, 1))
    mean = float(np.mean(values)) if values else None
    recall = float(np.mean([result.recall for result in results])) if values else None
    weak = sum(value < least for value in values)
    return {"objects": len(values), "weak": weak, "IoU": mean, "recall": recall, "histogram": counts.tolist()}


def write_audit(
    augmented: AugmentedSet, results: Sequence[Agreement], summary: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Write audit.json into the set's folder: the summary, `facts`, and every object's values."""
    files = {image["id"]: image["file_name"] for image in augmented.content["images"]}
    objects = [
        {"file_name": files[r.image], "annotation": r.annotation, "IoU": r.iou, "recall": r.recall} for r in results
    ]
    text = json.dumps({**facts, **summary, "objects": objects}, indent=1)
    report = augmented.folder / AUDIT
    write_whole(report, text)
    return report


def write_passed(augmented: AugmentedSet, out: Path, results: Sequence[Agreement], least: float) -> int:
    """Write the set without its weak images as `out`; its provenance has the agreement of each object.

    Returns:
        How many synthetic images are left.

    Raises:
        UserError: `out` holds files, no image passes, or a file cannot be read or written.
    """
    folder, weak = augmented.folder, weak_images(results, least)
    images = [image for image in augmented.content["images"] if image["id"] not in weak]
    annotations = [entry for entry in augmented.content["annotations"] if entry["image_id"] not in weak]
    content = {**augmented.content, "images": images, "annotations": annotations}
    names = [image["file_name"] for image in images]
    left = sum(image["synthetic"] for image in images)
    if not left:
        raise UserError(f"No image has an agreement of {least} or more throughout; lower --min-agreement.")
    lines = _provenance(folder, results, set(names))
    with whole_folder(out) as part:
        for name in names:
            target = part / "images" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with as_user_error(f"A picture of {folder} cannot be copied", "free some disk space", OSError):
                shutil.copyfile(folder / "images" / name, target)
        write_whole(part / PROVENANCE, "".join(lines))
        write_whole(part / ANNOTATIONS, json.dumps(content))
    return left


def _provenance(folder: Path, results: Sequence[Agreement], names: set[str]) -> list[str]:
    values = {result.annotation: {"agreement": result.iou, "agreement_recall": result.recall} for result in results}
    lines = []
    with as_user_error(f"{folder / PROVENANCE} does not fit {ANNOTATIONS}", "write the set again"):
        for line in (folder / PROVENANCE).read_text(encoding="utf-8").splitlines():
            facts = json.loads(line)
            if facts["file_name"] in names:
                facts["objects"] = [{**entry, **values[entry["annotation"]]} for entry in facts["objects"]]
                lines.append(json.dumps(facts) + "\n")
    return lines
