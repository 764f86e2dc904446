"""Per-image AP, cAP and rAP: the worked example, every clause of the definitions by hand, and the evaluator."""

import math

import numpy as np
import pytest
from coco_scene import annotation, evaluate, register, unregister
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator

from gan_plugin.evaluation.per_image_ap import (
    THRESHOLDS,
    ImagePairs,
    PerImageAP,
    average_precision,
    class_aps,
    image_ap,
    match,
    mean_of_defined,
    range_ap,
)

NAME = "made_up_for_per_image_ap"


def pairs(scores, classes, truth_classes, iou, crowd=None):
    shape = len(scores), len(truth_classes)
    return ImagePairs(
        np.array(scores, float),
        np.array(classes, int),
        np.array(truth_classes, int),
        np.array(iou, float).reshape(shape),
        None if crowd is None else np.array(crowd, float),
    )


def test_the_worked_example():
    # precisions 1, 1, 1, 1, 4/5, 5/6 at recalls 0.2, 0.4, 0.6, 0.8, 0.8, 1: 4 * 0.2 * 1 + 0.2 * 5/6
    assert average_precision(np.array([4, 3, 2, 1, -1, 0]), 5) == pytest.approx(29 / 30)
    assert round(average_precision(np.array([4, 3, 2, 1, -1, 0]), 5), 4) == 0.9667


@pytest.mark.parametrize(
    ("matches", "truth_count", "expected"),
    [
        ([], 3, 0),
        ([-1, -1], 3, 0),
        ([0], 2, 0.5),
        # precision 0, 1/2, 2/3: the envelope is 2/3 at every recall
        ([-1, 0, 1], 2, 2 / 3),
        # and a false positive after the last right one costs nothing
        ([0, 1, -1, -1], 2, 1),
        ([], 0, math.nan),
        ([-1], 0, math.nan),
    ],
)
def test_area_under_the_curve_by_hand(matches, truth_count, expected):
    result = average_precision(np.array(matches, int), truth_count)
    assert result == pytest.approx(expected, nan_ok=True)


def test_a_match_needs_the_class_and_more_than_the_threshold_and_is_taken_once():
    # the best IoU of prediction 0 is with an object of another class, and the second best is not above 0.5
    assert match(pairs([0.9], [1], [0, 1], [[0.9, 0.5]])).tolist() == [-1]
    assert match(pairs([0.9], [1], [0, 1], [[0.9, 0.51]])).tolist() == [1]
    # the surer prediction chooses first, though the other fits better; that one takes the next object above 0.5
    overlaps = [[0.95, 0.6], [0.8, 0.3], [0.9, 0.0]]
    assert match(pairs([0.5, 0.9, 0.1], [0, 0, 0], [0, 0], overlaps)).tolist() == [0, 1, -1]
    # the first of two equally sure ones
    assert match(pairs([0.5, 0.5], [0, 0], [0], [[0.6], [0.9]])).tolist() == [0, -1]


def test_unmatched_predictions_on_a_crowd_region_are_left_out():
    # the second is mostly on the region, the third not, the first is matched wherever it lies
    image = pairs([0.9, 0.8, 0.7, 0.6], [0] * 4, [0, 0], [[0.9, 0], [0, 0], [0, 0], [0, 0.7]], [1.0, 0.6, 0.5, 0.0])
    assert match(image).tolist() == [0, -1, 1]
    assert image_ap(image) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # at 0.65 the second is no longer on the region
    assert match(image, 0.65).tolist() == [0, -1, -1, 1]


def test_range_ap_is_the_mean_of_ten_thresholds():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    # 0.72 counts at five thresholds; exactly 0.75 and 0.9 are not above theirs
    image = pairs([0.9, 0.8], [0, 0], [0, 0], [[0.72, 0], [0, 0.9]])
    # five times both are right, then three times the second alone (precision 1/2 at recall 1/2), then none
    assert range_ap(image) == pytest.approx((5 * 1 + 3 * 0.25) / 10)
    assert math.isnan(range_ap(pairs([0.9], [0], [], [])))


def test_class_aps_see_their_class_alone_and_absent_ones_are_skipped_or_counted():
    # class 0: found, but the surest prediction is wrong; class 1: missed; 2: only predicted; 3: neither
    image = pairs([0.9, 0.8, 0.7], [0, 0, 2], [0, 1], [[0, 0.9], [0.9, 0], [0.9, 0.9]])
    assert class_aps(image, 4) == pytest.approx([0.5, 0, math.nan, math.nan], nan_ok=True)
    assert class_aps(image, 4, count_absent=True) == pytest.approx([0.5, 0, 0, 1])
    # all classes together: wrong, right, wrong with two objects
    assert image_ap(image) == pytest.approx(0.25)
    # of class 1 the surer prediction lies on a crowd region; the shares of the others must not be taken for its own
    crowded = pairs([0.9, 0.8, 0.7], [0, 1, 1], [1], [[0], [0], [0.9]], [0.0, 0.8, 0.1])
    assert class_aps(crowded, 2) == pytest.approx([math.nan, 1], nan_ok=True)
    assert class_aps(crowded, 2, count_absent=True) == pytest.approx([0, 1])


def test_means_skip_what_is_not_defined():
    assert mean_of_defined([1.0, math.nan, 0.5]) == 0.75
    assert math.isnan(mean_of_defined([math.nan])) and math.isnan(mean_of_defined([]))


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((40, 60), bool)
    mask[y0:y1, x0:x1] = True
    return mask


CUP, LID, GROUP = rectangle(0, 0, 10, 10), rectangle(20, 0, 40, 10), rectangle(0, 20, 60, 40)
SCENE = {
    # a cup and a lid, and many cups that are not told apart
    "first.png": [annotation(CUP, 0), annotation(LID, 1), annotation(GROUP, 0, crowd=1)],
    "cup.png": [annotation(CUP, 0)],
    "empty.png": [],
}
FOUND = {
    # the cup with IoU 0.8, a cup in the group (not counted), a lid in the group (wrong), the lid missed
    "first.png": [(0, rectangle(0, 0, 8, 10), 0.5), (0, GROUP, 0.9), (1, rectangle(0, 20, 9, 29), 0.8)],
    "cup.png": [(0, CUP, 0.6), (1, LID, 0.3)],
    "empty.png": [(1, LID, 0.3)],
}
# "first": wrong, right of two objects 0.25; "cup": 1
EXPECTED = {
    "AP": 100 * (0.25 + 1) / 2,
    # IoU 0.8, exactly, counts at six thresholds: it is not above 0.8
    "rAP": 100 * (0.6 * 0.25 + 1) / 2,
    "cAP-cup": 100,
    "cAP-lid": 0,
    "cAP": 50,
    # cups: 1, 1, and 1 in "empty"; lids: 0, 0, 0; jars: 1, 1, 1
    "cAP_counted": 100 * 6 / 9,
}


@pytest.mark.parametrize("ids", [None, {3: 0, 7: 1, 12: 2}])
def test_the_evaluator_on_three_images_by_hand(tmp_path, ids):
    records = [
        {"file_name": name, "image_id": name, "height": 40, "width": 60, "annotations": annotations}
        for name, annotations in SCENE.items()
    ]
    register(NAME, records, **({"thing_dataset_id_to_contiguous_id": ids} if ids else {}))
    try:
        truth = COCOEvaluator(NAME, ("segm",), output_dir=str(tmp_path))._coco_api
        evaluator = PerImageAP(NAME, truth)
        assert evaluate(evaluator, records, FOUND)["per_image"] == pytest.approx(EXPECTED)
        one = evaluate(evaluator, records[1:2], FOUND)["per_image"]
        assert (one["AP"], one["cAP"], "cAP-lid" in one) == (100, 100, False)
        nothing = evaluate(evaluator, records, dict.fromkeys(SCENE, []))["per_image"]
        assert (nothing["AP"], nothing["cAP"], nothing["rAP"]) == (0, 0, 0)
        # an image without anything, rightly predicted so
        assert evaluate(evaluator, records[2:], {"empty.png": []})["per_image"] == {"cAP_counted": 100}
        assert evaluate(evaluator, [], {}) == {"per_image": {}}
    finally:
        unregister(NAME)
    assert NAME not in DatasetCatalog.list()
