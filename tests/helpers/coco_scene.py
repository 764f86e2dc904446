"""A made-up data set and predictions of it, for the tests of evaluators."""

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

CLASSES = ["cup", "lid", "jar"]


def ellipse(rng, height, width):
    """A mask between 25 pixels and most of the image."""
    radii = rng.uniform(3, [height / 2, width / 2]) * rng.uniform(0.2, 1)
    y, x = rng.uniform(0, [height, width])
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y) / radii[0]) ** 2 + ((columns - x) / radii[1]) ** 2 < 1


def box_of(mask):
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def annotation(mask, number, crowd=0):
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "bbox": box_of(mask),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": number,
        "iscrowd": crowd,
        "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
    }


def make_records(seed=0, images=10, height=220, width=300):
    """Records with string ids that are not in order: crowds, an image without objects, and no "jar" anywhere."""
    rng = np.random.default_rng(seed)
    records = []
    for index in range(images):
        masks = [ellipse(rng, height, width) for _ in range(8 if index else 0)]
        annotations = [annotation(mask, i % 2, crowd=int(i > 5)) for i, mask in enumerate(masks) if mask.any()]
        name = f"{(7 * index) % images:02d}.png"
        records.append(
            {"file_name": name, "image_id": name, "height": height, "width": width, "annotations": annotations}
        )
    return records


def make_predictions(records, seed=1):
    """{image id: [(class, mask, score)]}: moved truth and strays, with many equal scores; one image has over 100.

    The first image, which is without objects, has strays alone; the second has objects and no predictions.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for index, record in enumerate(records):
        size = record["height"], record["width"]
        step = max(1, size[0] // 75)
        truth = [(a["category_id"], mask_util.decode(a["segmentation"]) > 0) for a in record["annotations"]]
        moved = [(number, np.roll(mask, rng.integers(-step, step + 1, 2), (0, 1))) for number, mask in truth * 2]
        stray = [(int(rng.integers(3)), ellipse(rng, *size)) for _ in range(110 if index == 3 else 4)]
        candidates = [(number, mask) for number, mask in moved + stray if mask.any()]
        scores = rng.uniform(0, 0.7, len(candidates))
        scores[: len(moved)] += 0.3
        scored = [(*c, float(s)) for c, s in zip(candidates, scores.round(1), strict=True)]
        found[record["image_id"]] = scored if index != 1 else []
    return found


def register(name, records, **metadata):
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=CLASSES, evaluator_type="coco", **metadata)


def unregister(prefix):
    for name in [name for name in DatasetCatalog.list() if name.startswith(prefix)]:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def evaluate(evaluator, records, predictions):
    process(evaluator, records, predictions)
    return evaluator.evaluate()


def process(evaluator, records, predictions):
    """Hand over the predictions of `records` as a model's instances."""
    evaluator.reset()
    for record in records:
        found = predictions[record["image_id"]]
        size = record["height"], record["width"]
        instances = Instances(size)
        masks = np.stack([mask for _, mask, _ in found]) if found else np.zeros((0, *size), bool)
        boxes = np.array([box_of(mask) for mask in masks], np.float32).reshape(-1, 4)
        # a box need not be its mask's
        instances.pred_boxes = Boxes(torch.from_numpy(boxes + 0.37))
        instances.pred_masks = torch.from_numpy(masks)
        instances.pred_classes = torch.tensor([number for number, _, _ in found], dtype=torch.int64)
        instances.scores = torch.tensor([score for _, _, score in found])
        evaluator.process([record], [{"instances": instances}])
