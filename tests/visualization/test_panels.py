"""Masks with known overlaps, and what the pictures of them must and must not change."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from gan_plugin.visualization import panels
from gan_plugin.visualization.panels import AGREEMENT, CONFUSED, INVENTED, MISSED, instance_from_mask

SHAPE = (40, 60)


def box(top, left, bottom, right):
    mask = np.zeros(SHAPE, bool)
    mask[top:bottom, left:right] = True
    return mask


def areas(difference_map):
    return [int((difference_map == value).sum()) for value in (AGREEMENT, MISSED, INVENTED, CONFUSED)]


def test_difference_counts_pixels():
    truth = [instance_from_mask(box(10, 10, 20, 20), 0), instance_from_mask(box(0, 40, 5, 45), 0)]
    predicted = [instance_from_mask(box(10, 12, 20, 22), 0, 0.9), instance_from_mask(box(30, 0, 34, 3), 1, 0.8)]
    # the square is shifted by 2 of its 10 columns, 5x5 pixels are missed, 4x3 invented
    assert areas(panels.difference(truth, predicted, SHAPE)) == [80, 20 + 25, 20 + 12, 0]
    assert panels.image_iou(truth, predicted) == pytest.approx((80 / 120) / 3)


def test_wrong_class_and_small_overlap_are_missed_and_invented_at_once():
    square, half = box(10, 10, 20, 20), box(10, 10, 20, 14)
    assert areas(panels.difference([instance_from_mask(square, 0)], [instance_from_mask(square, 1)], SHAPE)) == [
        0,
        0,
        0,
        100,
    ]
    # IoU 0.4 is no match
    assert areas(panels.difference([instance_from_mask(square, 0)], [instance_from_mask(half, 0)], SHAPE)) == [
        0,
        60,
        0,
        40,
    ]


def test_matching_is_one_to_one_and_by_score():
    truth = [instance_from_mask(box(0, 0, 10, 10), 0)]
    exact, shifted = box(0, 0, 10, 10), box(0, 1, 10, 11)
    predicted = [instance_from_mask(exact, 0, 0.6), instance_from_mask(shifted, 0, 0.7)]
    assert panels.match(truth, predicted) == {0: (1, pytest.approx(90 / 110))}
    assert panels.match(truth, []) == panels.match([], predicted) == {}
    assert panels.image_iou([], []) is None and panels.image_iou([], predicted) == 0


def test_truth_of_polygons_and_both_kinds_of_run_length_code():
    square = box(10, 10, 20, 20)
    compressed = rle_tools.encode(np.asfortranarray(square.astype(np.uint8)))
    # column by column: 10 columns of 40 rows and 10 rows, then runs of 10 inside and 30 outside
    counts = [10 * 40 + 10, *([10, 30] * 9), 10, 30 - 10 + 40 * 40]
    record = {"height": SHAPE[0], "width": SHAPE[1]}
    record["annotations"] = [
        {"segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]], "category_id": 0},
        {"segmentation": compressed, "category_id": 1},
        {"segmentation": {"size": list(SHAPE), "counts": counts}, "category_id": 2},
        {"segmentation": compressed, "category_id": 3, "iscrowd": 1},
        {"bbox": [0, 0, 5, 5], "category_id": 4},
    ]
    instances = panels.instances_of_record(record)
    assert [instance.label for instance in instances] == [0, 1, 2]
    assert all(np.array_equal(instance.mask, square) for instance in instances)


def test_predictions_are_read_as_detectron2_writes_them(tmp_path):
    rle = rle_tools.encode(np.asfortranarray(box(1, 2, 3, 4).astype(np.uint8)))
    rle["counts"] = rle["counts"].decode()
    entry = {"image_id": "a.png", "category_id": 7, "score": 0.25, "bbox": [2, 1, 2, 2], "segmentation": rle}
    (tmp_path / "results.json").write_text(json.dumps([entry]))
    [instance] = panels.read_predictions(tmp_path / "results.json", {7: 0})["a.png"]
    assert (instance.label, instance.score) == (0, 0.25)
    assert np.array_equal(instance.mask, box(1, 2, 3, 4))


def test_confident_falls_back_to_the_best_few():
    scores = [instance_from_mask(box(0, 0, 2, 2), 0, score) for score in (0.1, 0.4, 0.3, 0.2)]
    assert [p.score for p in panels.confident(scores, 0.25)[0]] == [0.4, 0.3]
    best, sure = panels.confident(scores, 0.5)
    assert [p.score for p in best] == [0.4, 0.3, 0.2] and not sure


def test_drawing_leaves_the_image_and_what_is_far_from_it_alone():
    image = np.full((200, 300, 3), 90, np.uint8)
    mask = np.zeros((200, 300), bool)
    mask[150:190, 20:80] = True
    drawn = panels.draw_instances(image, [mask, ~mask & False], ["car", "nothing"], panels.INSTANCE_COLOURS[:2])
    assert (image == 90).all()
    assert (drawn[:100] == 90).all() and (drawn[:, 150:] == 90).all()
    inside = drawn[170, 50]
    assert np.abs(inside - (0.55 * 90 + 0.45 * np.array(panels.INSTANCE_COLOURS[0]))).max() <= 1


def test_texts_never_cover_each_other(monkeypatch):
    boxes = []
    rectangle = panels.ImageDraw.ImageDraw.rectangle
    monkeypatch.setattr(
        panels.ImageDraw.ImageDraw, "rectangle", lambda *a, **k: (boxes.append(a[1]), rectangle(*a, **k))
    )
    masks = [np.pad(np.ones((20, 20), bool), ((50 + 8 * i, 130 - 8 * i), (100 + i, 180 - i))) for i in range(12)]
    panels.draw_instances(np.zeros((200, 300, 3), np.uint8), masks, ["rider 0.9"] * 12, panels.INSTANCE_COLOURS * 2)
    assert len(boxes) > 3
    for i, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and top >= 0 and right <= 300 and bottom <= 200
        assert not any(left <= r and left_ <= right and top <= b and top_ <= bottom for left_, top_, r, b in boxes[:i])


def test_zoom_looks_where_the_outlines_differ():
    image = np.zeros((200, 200, 3), np.uint8)
    image[..., 0] = np.arange(200)  # red tells the column
    truth, predicted = np.zeros((2, 200, 200), bool)
    truth[20:180, 20:180] = predicted[20:180, 20:180] = True
    predicted[60:140, 150:180] = False
    zoom = panels.boundary_zoom(image, truth, predicted, side=200)
    assert zoom.shape == (200, 200, 3)
    # the window is 96 pixels wide and has the missing part in its middle
    assert zoom[3, 3, 0] > 90 and zoom[100, 100, 0] > 140
    for colour in panels.OUTLINE_LEGEND.values():
        assert (zoom == colour).all(axis=2).any()


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["protanopia", "deuteranopia"],
)
def test_colours_stay_apart_for_the_colour_blind(matrix):
    """Matrices: Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB."""
    for colours in ([colour for _, colour in panels.DIFFERENCE_LEGEND.values()], list(panels.OUTLINE_LEGEND.values())):
        linear = (np.array(colours) / 255) ** 2.2
        seen = (linear @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2)
        distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        assert min(distances) > 0.25
