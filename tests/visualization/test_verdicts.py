"""Verdicts and their maps of discriminators whose every answer is known."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from small_models import CASCADE, FEATURES, POINT_REND, build, small
from torch import nn

from gan_plugin.errors import UserError
from gan_plugin.modeling.adversary import Adversary
from gan_plugin.modeling.objectives import build_objective
from gan_plugin.modeling.presenters import PixelMasks
from gan_plugin.modeling.samples import MaskSamples
from gan_plugin.visualization.verdicts import draw_verdicts, judge_masks, occlusion_maps, scores

SIDE = 14


class Weighs(nn.Module):
    """One logit: a weighted sum of the mask's pixels."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, masks):
        return (masks[:, 0] * self.weights).sum((1, 2))


class Shows(nn.Module):
    """Features: the mask itself and its double, each (R, K)."""

    def forward(self, masks):
        return masks.flatten(1), 2 * masks.flatten(1)


def adversary(discriminator, objective="NonSaturatingBCE"):
    return Adversary(
        name="mask",
        discriminator=discriminator,
        objective=build_objective(objective),
        presenter=PixelMasks(SIDE),
    ).eval()


@pytest.fixture
def sample():
    """One mask and its truth."""
    torch.manual_seed(0)
    truth = (torch.rand(1, SIDE, SIDE) > 0.5).float()
    nothing = torch.zeros(1, dtype=torch.long)
    return MaskSamples(torch.randn(1, SIDE, SIDE), truth, nothing.bool(), nothing, torch.zeros(1, 5))


def averaged_over_windows(change):
    """What windows of 2 x 2 that move by 1 credit to each pixel, if `change` holds each pixel's own share; a loop."""
    total, times = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for top in range(SIDE - 1):
        for left in range(SIDE - 1):
            total[top : top + 2, left : left + 2] += change[top : top + 2, left : left + 2].sum()
            times[top : top + 2, left : left + 2] += 1
    return total / times


def test_the_map_of_a_weighing_discriminator_is_its_weights_times_the_change(sample):
    weights = torch.linspace(-1, 2, SIDE * SIDE).view(SIDE, SIDE)
    judge = adversary(Weighs(weights))
    on_truth, on_drawn = occlusion_maps(judge, sample)
    # in the discriminator's units a mask goes from -1 to 1
    blanked = -2 * sample.truth[0] * weights
    replaced = 2 * (sample.truth[0] - sample.logits[0].sigmoid()) * weights
    assert np.allclose(on_truth, averaged_over_windows(blanked.numpy()), atol=1e-4)
    assert np.allclose(on_drawn, averaged_over_windows(replaced.numpy()), atol=1e-4)


def test_the_map_of_features_is_the_fall_of_their_distance(sample):
    judge = adversary(Shows(), "MultiLayerL1")
    apart = (sample.truth - sample.logits.sigmoid()).abs()[0].numpy()
    # distances of 2 |a - b| and of 4 |a - b|, over 2 K numbers
    share = 6 * apart / (2 * SIDE * SIDE)
    assert scores(judge, sample)[1].item() == pytest.approx(share.sum(), rel=1e-5)
    assert np.allclose(occlusion_maps(judge, sample)[1], averaged_over_windows(share), atol=1e-6)


@pytest.mark.parametrize(
    "kind, keys",
    [
        ("occlusion", {}),
        ("patches", {"MODEL.GAN.MASK.DISCRIMINATOR": "PatchMaskDiscriminator", "MODEL.GAN.MASK.CHANNELS": (8, 8)}),
        ("occlusion", CASCADE),
        ("occlusion", {**POINT_REND, "MODEL.POINT_HEAD.NUM_CLASSES": 1, "INPUT.MASK_FORMAT": "bitmask"}),
        ("distance", {"MODEL.ROI_HEADS.NAME": "AdversarialROIHeads", **FEATURES}),
    ],
)
def test_the_masks_of_a_model_on_its_test_images(run_cfg, kind, keys):
    cfg = small(run_cfg, keys)
    model = build(cfg)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    records = DatasetCatalog.get("penn_fudan_train_a")
    verdicts = judge_masks(cfg, model, records, count=3)
    assert verdicts.kind == kind and len(verdicts.pairs) == 3
    found = [pair.on_drawn for pair in verdicts.pairs]
    assert found == sorted(found)
    adversary = model.adversaries["mask"]
    for pair in verdicts.pairs:
        overlap = ((pair.drawn > 0.5) & (pair.truth > 0.5)).sum() / ((pair.drawn > 0.5) | (pair.truth > 0.5)).sum()
        assert pair.iou == pytest.approx(overlap, abs=1e-6)
        if kind == "distance":
            assert pair.truth_map is None and pair.on_truth == 0 < pair.on_drawn
            continue
        masks = torch.from_numpy(np.stack([pair.truth, pair.drawn]))[:, None]
        size = cfg.MODEL.GAN.MASK.INPUT_SIZE
        seen = nn.functional.interpolate(masks, (size, size), mode="bilinear") * 2 - 1
        with torch.no_grad():
            probabilities = adversary.discriminator(seen).sigmoid()
        assert [pair.on_truth, pair.on_drawn] == pytest.approx(probabilities.reshape(2, -1).mean(1).tolist(), abs=1e-5)
        if kind == "patches":
            assert np.allclose(pair.drawn_map, 0.5 - probabilities[1], atol=1e-5)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    again = judge_masks(cfg, build(cfg), records, count=3)
    assert draw_verdicts(again) == draw_verdicts(verdicts)


def test_a_plain_model_has_no_verdicts(run_cfg):
    run_cfg.MODEL.GAN.ENABLED = False
    with pytest.raises(UserError, match="no discriminator of masks"):
        judge_masks(run_cfg, build(small(run_cfg)), [])


def test_images_without_a_matched_mask_are_passed_over(run_cfg):
    """Of the first two images no proposal matches anything; then of none."""
    cfg = small(run_cfg)
    model, records = build(cfg), DatasetCatalog.get("penn_fudan_train_a")
    forward, calls = model.generator_forward, []

    def unmatched_at_first(batch):
        losses, samples = forward(batch)
        calls.append(batch)
        if len(calls) <= unmatched:
            samples["mask"].samples.matched[:] = False
        return losses, samples

    model.generator_forward = unmatched_at_first
    unmatched = 2
    assert len(judge_masks(cfg, model, records, count=2).pairs) == 2
    unmatched, calls = len(records), []
    with pytest.raises(UserError, match="No mask of the test images reached the discriminator"):
        judge_masks(cfg, model, records, count=2)
