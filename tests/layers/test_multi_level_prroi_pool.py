"""Which level of the pyramid a box is pooled from, against Detectron2's own pooler."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from gan_plugin.layers.prroi_pool import MultiLevelPrRoIPool, prroi_pool

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


@pytest.fixture
def boxes():
    """Two images' boxes [image, x0, y0, x1, y1] of 1 to 1000 pixels, some of them where levels meet."""
    torch.manual_seed(0)
    sides = torch.cat([torch.logspace(0, 3, 60), torch.tensor([111.9, 112, 223.9, 224, 447.9, 448])])
    corner = torch.rand(len(sides), 2) * 50
    ratio = torch.cat([0.5 + torch.rand(60), torch.ones(6)])
    size = torch.stack([sides * ratio, sides / ratio], dim=1)
    return torch.cat([(torch.arange(len(sides)) % 2)[:, None].float(), corner, corner + size], dim=1)


def test_levels_are_detectron2s(boxes):
    """On levels of one constant each, what is pooled names the level."""
    features = [torch.full((2, 1, 512, 512), float(level)) for level in range(4)]
    ours = MultiLevelPrRoIPool(1, SCALES)(features, boxes)[:, 0, 0, 0]
    pooler = ROIPooler(1, SCALES, sampling_ratio=1, pooler_type="ROIAlignV2")
    order = torch.cat([(boxes[:, 0] == image).nonzero().flatten() for image in (0, 1)])
    theirs = pooler(features, [Boxes(boxes[boxes[:, 0] == image, 1:]) for image in (0, 1)])[:, 0, 0, 0]
    assert ours[order].round().tolist() == theirs.round().tolist()
    assert set(theirs.round().tolist()) == {0, 1, 2, 3}


def test_each_box_is_pooled_from_its_own_level_and_image(boxes):
    features = [torch.randn(2, 3, int(512 * scale), int(512 * scale)) for scale in SCALES]
    chosen = boxes[[5, 40, 55, 62, 63]]
    pooled = MultiLevelPrRoIPool(2, SCALES)(features, chosen)
    area = ((chosen[:, 3] - chosen[:, 1]) * (chosen[:, 4] - chosen[:, 2])).sqrt()
    levels = (4 + (area / 224).log2()).floor().clamp(2, 5).long() - 2
    for box, level, ours in zip(chosen, levels.tolist(), pooled, strict=True):
        torch.testing.assert_close(ours, prroi_pool(features[level], box[None], 2, SCALES[level])[0])


def test_max_is_the_greatest_of_all_levels_element_by_element(boxes):
    features = [torch.randn(2, 3, int(128 * scale), int(128 * scale)) for scale in SCALES]
    boxes = boxes[:20]
    levels = [prroi_pool(feature, boxes, 3, scale) for feature, scale in zip(features, SCALES, strict=True)]
    expected = levels[0]
    for level in levels[1:]:
        expected = torch.where(level > expected, level, expected)
    assert torch.equal(MultiLevelPrRoIPool(3, SCALES, "max")(features, boxes), expected)


@pytest.mark.parametrize("assignment", ["level", "max"])
def test_gradients_reach_boxes_and_features_also_of_no_boxes(boxes, assignment):
    features = [torch.randn(2, 3, int(512 * s), int(512 * s), requires_grad=True) for s in SCALES]
    pooler = MultiLevelPrRoIPool(2, SCALES, assignment)
    few = boxes[[10, 45, 64]].requires_grad_(True)
    pooler(features, few).square().sum().backward()
    assert (few.grad[:, 1:].abs().sum(1) > 0).all() and (few.grad[:, 0] == 0).all()
    none = torch.zeros(0, 5, requires_grad=True)
    pooled = pooler(features, none)
    assert pooled.shape == (0, 3, 2, 2)
    grads = torch.autograd.grad(pooled.sum(), [*features, none])
    assert all(grad.abs().sum() == 0 for grad in grads)
