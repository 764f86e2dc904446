"""The rules of the Cityscapes AP by hand, and masks counted from RLEs."""

import math

import numpy as np
import pycocotools.mask as rle
import pytest
from random_cityscapes import HEIGHT, WIDTH, random_ids, random_predictions

from gan_plugin.errors import UserError
from gan_plugin.evaluation.cityscapes import average_precision, compare, match
from gan_plugin.evaluation.instance_ids import InstanceIds, run_lengths


def test_match_by_hand():
    """Targets 0 (hit twice, the better one second), 1 (missed at 0.7); a group; ground to ignore."""
    scores = np.array([0.3, 0.8, 0.6, 0.9, 0.5, 0.4])
    iou = np.array([0.9, 0.8, 0.65, 0.9, 0.1, 0.0])
    target = np.array([0, 0, 1, -1, 0, -1])
    ignored = np.array([0.0, 0.0, 0.0, 1.0, 0.2, 0.65])
    true, false = match(scores, iou, target, ignored, 0.6)
    assert (sorted(true), sorted(false)) == ([0.6, 0.8], [0.3, 0.5])
    true, false = match(scores, iou, target, ignored, 0.7)
    assert (sorted(true), sorted(false)) == ([0.8], [0.3, 0.4, 0.5, 0.6])


def test_average_precision_by_hand():
    none = np.zeros(0)
    assert math.isnan(average_precision(none, np.array([0.5]), 0))
    assert average_precision(none, none, 3) == average_precision(none, np.array([0.5]), 3) == 0
    # cuts 0.5, 0.7, 0.9, then the artificial point: recall 1, 1/2, 1/2, 0 at precision 2/4, 1/3, 1/2, 1; all of them
    # are 1/4 wide
    true, false = np.array([0.5, 0.9]), np.array([0.7, 0.9])
    assert average_precision(true, false, 2) == pytest.approx((2 / 4 + 1 / 3 + 1 / 2 + 1) / 4)


@pytest.mark.parametrize("seed", range(4))
def test_rles_are_counted_as_their_pixels(seed):
    random = np.random.default_rng(seed)
    ids = random_ids(random)
    truth = InstanceIds(ids)
    corners = np.zeros((HEIGHT, WIDTH), bool)
    corners[0, 0] = corners[-1, -1] = True
    noise = random.random((HEIGHT, WIDTH)) < 0.5
    for mask in (*random_predictions(random, ids).pred_masks.numpy(), corners, noise, noise | True, noise & False):
        compressed = rle.encode(np.asfortranarray(mask, np.uint8))
        lengths = run_lengths(compressed["counts"])
        counted = truth.count(mask)
        assert counted.sum() == mask.sum()
        for counts in (compressed["counts"], compressed["counts"].decode(), lengths.tolist()):
            np.testing.assert_array_equal(truth.count({"size": [HEIGHT, WIDTH], "counts": counts}), counted)


def test_an_empty_mask_is_no_prediction():
    ids = np.full((HEIGHT, WIDTH), 26001)
    full = np.ones((HEIGHT, WIDTH), bool)
    found = compare(ids, [~full, full, ~full], [26, 26, 26], [0.1, 0.2, 0.3])
    assert (found.scores.tolist(), found.iou.tolist(), found.target.tolist()) == ([0.2], [1.0], [0])


@pytest.mark.parametrize("wrong", [-1, 500, 34000, 2**40])
def test_ids_that_are_not_those_of_cityscapes(wrong):
    ids = np.full((HEIGHT, WIDTH), 26001)
    ids[3, 4], ids[0, 0] = wrong, 7
    with pytest.raises(UserError, match=f"the id {wrong}, which Cityscapes does not define"):
        InstanceIds(ids)
