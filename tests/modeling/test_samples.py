"""What the discriminator sees, worked by hand."""

import math

import pytest
import torch
from detectron2.structures import Boxes, Instances

from gan_plugin.modeling.presenters import PixelMasks, sample_grid, straight_through_binarize
from gan_plugin.modeling.samples import MaskSamples, greedy_match, mask_iou, reconstruction_loss


def samples_of(logits, truth, matched=None):
    logits, truth = torch.as_tensor(logits).float(), torch.as_tensor(truth).float()
    matched = torch.ones(len(truth), dtype=torch.bool) if matched is None else torch.tensor(matched)
    return MaskSamples(logits, truth, matched, torch.zeros(len(truth)).long(), torch.zeros(len(truth), 5))


def test_masks_are_scaled_to_the_discriminators_range():
    pair = PixelMasks(size=2)(samples_of([[[100.0, -100.0], [0.0, 0.0]]], [[[1, 0], [0, 1]]]))
    assert pair.real.tolist() == [[[[1, -1], [-1, 1]]]]
    assert pair.fake.tolist() == [[[[1, -1], [0, 0]]]]


def test_real_and_predicted_are_resized_alike():
    truth = (torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    pair = PixelMasks(size=128)(samples_of((truth * 2 - 1) * 200, truth))
    assert torch.equal(pair.real, pair.fake)
    assert pair.real.shape == (3, 1, 128, 128)


def test_straight_through_is_binary_and_keeps_the_gradient():
    p = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
    hard = straight_through_binarize(p)
    (hard * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert hard.tolist() == [0, 0, 1]
    assert p.grad.tolist() == [1, 2, 3]
    samples = samples_of([[[3.0, -3.0], [0.1, -0.1]]], torch.zeros(1, 2, 2))
    assert PixelMasks(2, fake="straight_through")(samples).fake.flatten().tolist() == [1, -1, 1, -1]


def test_reconstruction_is_the_mean_absolute_error_of_matched_pairs():
    logits = torch.zeros(2, 2, 2, requires_grad=True)
    truth = torch.tensor([[[1.0, 1], [1, 0.75]], [[0, 0], [0, 0]]])
    assert reconstruction_loss(samples_of(logits, truth, [True, False])).item() == pytest.approx(1.75 / 4)
    nothing = reconstruction_loss(samples_of(logits, truth, [False, False]))
    nothing.backward()
    assert nothing.item() == 0 and logits.grad.abs().sum() == 0


def test_other_errors_by_hand():
    samples = samples_of([[[0.0, 0.0], [50.0, -50.0]]], torch.tensor([[[1.0, 0], [1, 0]]]))
    # two pixels at one half cost log 2 each; p = (0.5, 0.5, 1, 0), so 2 * 1.5 / (1.5 + 2)
    assert reconstruction_loss(samples, "bce").item() == pytest.approx(math.log(2) / 2)
    assert reconstruction_loss(samples, "dice").item() == pytest.approx(1 - 3 / 3.5)


def test_greedy_matching_is_one_to_one_by_descending_score():
    image = Instances((50, 50))
    image.gt_boxes = Boxes(torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 30, 30], [0, 0, 9, 9]]))
    image.gt_classes = torch.tensor([0, 0, 1, 1])
    image.objectness_logits = torch.tensor([1.0, 2.0, 0.0, 3.0])
    iou = torch.tensor([0.9, 0.8, 0.4, 0.7])
    # 1 beats 0 for the first instance; 2 overlaps too little; 3 is another instance, of another class, in the same box
    assert greedy_match([image], iou, 0.5).tolist() == [False, True, False, True]
    empty = image[torch.zeros(4, dtype=torch.bool)]
    assert greedy_match([empty, image], iou, 0.3).tolist() == [False, True, True, True]


def test_greedy_matching_is_of_each_image_alone():
    def image(*scores):
        found = Instances((50, 50))
        found.gt_boxes = Boxes(torch.tensor([[0.0, 0, 9, 9]] * len(scores)))
        found.gt_classes = torch.zeros(len(scores), dtype=torch.long)
        found.objectness_logits = torch.tensor(scores)
        return found

    images = [image(2.0, 1.0), image(), image(1.0, 2.0, 3.0), image(0.0)]
    # an overlap at the threshold is enough; the surest of the third image overlaps too little, and takes nothing
    iou = torch.tensor([0.5, 0.9, 0.9, 0.8, 0.4, 0.6])
    matched = greedy_match(images, iou, 0.5)
    assert matched.dtype == torch.bool and matched.tolist() == [True, False, False, True, False, True]
    for each in images:
        each.remove("objectness_logits")
    # the better overlap comes first where nothing else says who is surer
    assert greedy_match(images, iou, 0.5).tolist() == [False, True, True, False, False, True]


def test_mask_iou_by_hand():
    logits = torch.tensor([[[1.0, 1], [-1, -1]], [[-1, -1], [-1, -1]]])
    truth = torch.tensor([[[1.0, 0], [1, 0]], [[0, 0], [0, 0]]])
    assert mask_iou(logits, truth).tolist() == pytest.approx([1 / 3, 0])
    # on the border neither is inside: a logit of 0, and half a pixel of truth
    assert mask_iou(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 1.0]]])).tolist() == [0.5]
    assert mask_iou(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.5, 1.0]]])).tolist() == [0.5]


def test_sample_grid_shows_truth_above_prediction():
    grid = sample_grid(samples_of([[[100.0, -100.0], [100.0, -100.0]]] * 2, [[[0, 1], [0, 1]]] * 2))
    assert grid.shape == (3, 5, 5)
    assert grid[0].tolist() == [[0, 1, 0.5, 0, 1]] * 2 + [[0.5] * 5] + [[1, 0, 0.5, 1, 0]] * 2
