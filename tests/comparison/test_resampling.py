"""AP of resampled images against pycocotools and faster-coco-eval on copied images; coverage of the interval."""

import contextlib
import io

import numpy as np
import pycocotools.mask as mask_util
import pytest
from coco_scene import make_predictions, make_records
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from gan_plugin.comparison.resampling import (
    hierarchical_interval,
    image_weights,
    match_images,
    resampled_ap,
    resampled_mean,
)
from gan_plugin.visualization.panels import instance_from_mask

RECORDS = make_records(height=90, width=120)
# no two scores are equal: among equal ones COCO's order is that of the images, and copies stand apart
_jitter = np.random.default_rng(2)
FOUND = {
    image: [instance_from_mask(mask, number, score + _jitter.uniform(0, 0.01)) for number, mask, score in predictions]
    for image, predictions in make_predictions(RECORDS).items()
}


def reference_ap(times, task, limit):
    """COCO's AP of a data set in which each image stands so often, under ids of its own, at most `limit` of a class."""
    images, truth, found = [], [], []
    for record, count in zip(RECORDS, times, strict=True):
        for _ in range(count):
            number = len(images)
            images.append({"id": number, "height": record["height"], "width": record["width"]})
            for one in record["annotations"]:
                area = int(mask_util.area(one["segmentation"]))
                box = mask_util.toBbox(one["segmentation"]).tolist()
                truth.append({**one, "id": len(truth) + 1, "image_id": number, "area": area, "bbox": box})
            for one in FOUND.get(record["image_id"], ()):
                rle = {**one.rle, "counts": one.rle["counts"].decode()}
                found.append({"image_id": number, "category_id": one.label, "segmentation": rle, "score": one.score})
    content = {"info": {}, "images": images, "annotations": truth, "categories": [{"id": i} for i in range(3)]}
    with contextlib.redirect_stdout(io.StringIO()):
        if task == "boundary":
            coco = FasterCOCO({**content, "categories": [{"id": i, "name": str(i)} for i in range(3)]})
            evaluation = COCOeval_faster(coco, coco.loadRes(found), task)
        else:
            coco = COCO()
            coco.dataset = content
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(found), task)
        evaluation.params.maxDets = [0, 1, limit]
        evaluation.evaluate()
        evaluation.accumulate()
    # (thresholds, recalls, classes, areas, limits); all areas come first
    precision = np.asarray(evaluation.eval["precision"])[..., 0, -1]
    return 100 * precision[precision > -1].mean()


@pytest.mark.parametrize(("task", "limit"), [("segm", 100), ("boundary", 100), ("segm", 2)])
def test_ap_of_weighted_images_is_that_of_copied_ones(task, limit):
    matches = match_images(RECORDS, FOUND, boundary=task == "boundary", detections=limit)
    weights = np.vstack([np.ones((1, len(RECORDS)), int), image_weights(len(RECORDS), 3)])
    assert (weights.sum(1) == len(RECORDS)).all() and weights.max() > 1
    expected = [reference_ap(times, task, limit) for times in weights]
    assert resampled_ap(matches, weights).tolist() == pytest.approx(expected, abs=1e-9)
    assert len(set(expected)) > 2
    assert limit == 100 or abs(expected[0] - reference_ap(weights[0], task, 100)) > 1


def test_means_of_weighted_images_are_those_of_copied_ones():
    rng = np.random.default_rng(3)
    ids = [record["image_id"] for record in RECORDS[1:] for _ in range(4)]
    objects = [{"image_id": image, "mask_iou": float(rng.uniform())} for image in ids]
    weights = np.vstack([np.ones((1, len(RECORDS)), int), image_weights(len(RECORDS), 3), np.eye(1, len(RECORDS))])
    expected = []
    for times in weights.astype(int):
        often = {record["image_id"]: count for record, count in zip(RECORDS, times, strict=True)}
        values = [one["mask_iou"] for one in objects for _ in range(often[one["image_id"]])]
        expected.append(100 * np.mean(values) if values else np.nan)
    found = resampled_mean(RECORDS, objects, "mask_iou", weights)
    assert found.tolist() == pytest.approx(expected, nan_ok=True) and np.isnan(found).tolist() == [False] * 4 + [True]


def test_nothing_found_and_nothing_to_find():
    one = np.ones((1, len(RECORDS)), int)
    assert resampled_ap(match_images(RECORDS, {}, boundary=False), one).tolist() == [0]
    # the first image is without objects
    assert np.isnan(resampled_ap(match_images(RECORDS, FOUND, boundary=False), np.eye(1, len(RECORDS), dtype=int)))[0]


def test_one_seed_has_no_interval_and_no_spread_has_no_width():
    assert hierarchical_interval(np.ones((1, 9)), 5) is None
    assert hierarchical_interval(np.full((5, 9), np.nan), 5) is None
    assert hierarchical_interval(np.hstack([np.ones((5, 1)), np.full((5, 9), np.nan)]), 5) is None
    assert hierarchical_interval(np.ones((5, 9)), 5) == (1.0, 1.0)
