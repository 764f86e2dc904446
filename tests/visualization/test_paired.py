"""Which prediction counts for which object, and which objects a reader is shown, on cases worked by hand."""

import numpy as np
import pytest

from gan_plugin.visualization import paired
from gan_plugin.visualization.paired import Fate, PairedObject
from gan_plugin.visualization.panels import AGREEMENT, INVENTED, MISSED, instance_from_mask
from gan_plugin.visualization.scenes import right_and_wrong

# a diagonal of 50 pixels: bands of Boundary IoU are 1 wide
SHAPE = (30, 40)


def square(left, label=0, score=1.0, top=5, columns=10):
    mask = np.zeros(SHAPE, bool)
    mask[top : top + 10, left : left + columns] = True
    return instance_from_mask(mask, label, score)


def record(*truth, name=0):
    annotations = [{"segmentation": t.rle, "category_id": t.label} for t in truth]
    return {"height": SHAPE[0], "width": SHAPE[1], "annotations": annotations, "image_id": name, "file_name": "x.png"}


def test_fates_by_hand():
    truth = [square(2), square(20)]
    found = [
        square(3, score=0.6),  # 9 of 10 columns of the first
        square(4, score=0.9),  # 8 of 10, and comes first
        square(20, label=1, score=0.99),  # another class
        square(27, score=0.8),  # 3 of 10 columns of the second: 30 / 170 is too little
    ]
    first, second = paired.fates(truth, found)
    assert first.prediction is found[1]
    assert first.iou == pytest.approx(80 / 120)
    # the bands share two rows of 8
    assert first.boundary_iou == pytest.approx(16 / (36 + 36 - 16))
    assert second == Fate(0.0, 0.0, None)


def test_each_object_once_and_misses_and_weak_scores_are_zero():
    records = [record(square(2), square(20)), record(name=1), record(square(10), name=2)]
    # twice the same object, and one on the second that scores too little
    run = paired.judge_run(records, {0: [square(2), square(2, score=0.9), square(20, score=0.4)]}, threshold=0.5)
    assert [[fate.iou for fate in of_image] for of_image in run.fates] == [[1.0, 0.0], [], [0.0]]
    assert [len(found) for found in run.found] == [2, 0, 0]
    other = paired.judge_run(records, {0: [square(20)], 2: [square(10)]}, threshold=0.5)
    objects = paired.pair_objects(records, [run, run], [other, run])
    assert [(o.record, o.index, o.gains("iou")) for o in objects] == [
        (0, 0, [-1.0, 0.0]),
        (0, 1, [1.0, 0.0]),
        (2, 0, [1.0, 0.0]),
    ]
    assert [o.gain("boundary_iou") for o in objects] == [-0.5, 0.5, 0.5]


def compared(number, *pairs, columns=10):
    """An object with (baseline, GAN) values a seed; by boundary IoU the other way round."""
    base, gan = ([Fate(pair[side], 1 - pair[side]) for pair in pairs] for side in (0, 1))
    return PairedObject(number, 0, square(0, columns=columns), tuple(base), tuple(gan))


def test_the_greatest_gains_and_losses_by_hand():
    objects = [
        compared(0, (0.5, 0.6), (0.5, 0.8)),  # +0.2 on average
        compared(1, (0.0, 0.9), (0.8, 0.0)),  # +0.05
        compared(2, (0.5, 0.5), (0.7, 0.7)),  # nothing
        compared(3, (0.5, 0.7), (0.5, 0.7), columns=12),  # +0.2 as well, and larger
        compared(4, (0.9, 0.4), (0.9, 0.9)),  # -0.25
    ]
    order = {
        (measure, losses): [o.record for o in paired.greatest(objects, measure, 3, losses=losses)]
        for measure in paired.MEASURES
        for losses in (False, True)
    }
    assert order["iou", False] == [3, 0, 1] and order["iou", True] == [4]
    assert order["boundary_iou", True] == [3, 0, 1] and order["boundary_iou", False] == [4]


def test_the_seed_that_is_shown_has_something_to_show():
    assert paired.telling([0.9, 0.3, 0.0]) == 1
    # the mean is nearer to seeds in which nothing happens
    assert paired.telling([0.0, 0.0, 0.3]) == 2 and paired.telling([-0.4, 0.1]) == 0
    assert paired.telling([0.2]) == 0 and paired.telling([0.3, -0.3, 0.0]) == 2


def test_right_and_wrong_pixels():
    truth, mask = square(0).mask, square(4).mask
    areas = [int((right_and_wrong(truth, mask) == value).sum()) for value in (AGREEMENT, MISSED, INVENTED, 0)]
    assert areas == [60, 40, 40, 30 * 40 - 140]
