"""What the mask head hands out to its adversary, worked by hand."""

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from small_models import build

from gan_plugin.modeling.sources import watching


def samples_of(model, features, image):
    """What is seen while the mask head draws one image's masks."""
    with EventStorage(0), watching(model.source, model, False) as found:
        loss = model.roi_heads.mask_head(features, [image])["loss_mask"]
    return found(loss)["mask"]


def test_antialiased_truth_is_the_share_of_each_cell_that_is_inside(tiny_cfg):
    """In a box of 28 pixels, a cell is a pixel: a rectangle that ends at x = 10.5 fills half of column 10."""
    tiny_cfg.MODEL.GAN.MASK.REAL = "antialiased"
    model = build(tiny_cfg)
    image = Instances((28, 28))
    image.proposal_boxes = image.gt_boxes = Boxes(torch.tensor([[0.0, 0, 28, 28]]))
    image.gt_classes = torch.tensor([1])
    image.gt_masks = PolygonMasks([[[0.0, 0.0, 10.5, 0.0, 10.5, 28.0, 0.0, 28.0]]])
    truth = samples_of(model, torch.zeros(1, 16, 14, 14), image).truth
    assert truth[0].tolist() == [[1.0] * 10 + [0.5] + [0.0] * 17] * 28


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("matching", ["proposal", "greedy"])
def test_the_heads_samples_are_its_logits_and_truth(tiny_cfg, agnostic, matching):
    """Three proposals in one box: two of the same object, of which a one-to-one matching takes the better scored."""
    tiny_cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = agnostic
    tiny_cfg.MODEL.GAN.MASK.MATCHING = matching
    model = build(tiny_cfg)
    head = model.roi_heads.mask_head
    image = Instances((28, 28))
    image.proposal_boxes = Boxes(torch.tensor([[0.0, 0, 28, 28]] * 3))
    image.gt_boxes = Boxes(torch.tensor([[0.0, 0, 28, 28], [0.0, 0, 28, 28], [0.0, 0, 14, 28]]))
    image.gt_classes = torch.tensor([1, 1, 0])
    image.objectness_logits = torch.tensor([0.1, 0.2, 0.3])
    image.gt_masks = PolygonMasks(
        [[[0.0, 0.0, 28.0, 0.0, 28.0, 28.0, 0.0, 28.0]]] * 2 + [[[0.0, 0, 14, 0, 14, 28, 0, 28]]]
    )
    torch.nn.init.constant_(head.predictor.weight, 0)
    with torch.no_grad():
        head.predictor.bias.copy_(torch.tensor([3.0, 4.0])[: len(head.predictor.bias)])
    samples = samples_of(model, torch.zeros(3, 16, 14, 14), image)
    assert samples.logits[:, 0, 0].tolist() == ([3, 3, 3] if agnostic else [4, 4, 3])
    assert samples.truth.mean(dim=(1, 2)).tolist() == [1, 1, 0.5]
    # all three overlap their truth by half or more, and the whole box is predicted
    assert samples.matched.tolist() == ([True] * 3 if matching == "proposal" else [False, True, True])


def test_the_truth_is_rasterised_once_for_the_head_and_its_discriminator(tiny_cfg, inputs, monkeypatch):
    """Polygons take time; what the head's loss has cropped is what the samples hold."""
    crop, calls = BitMasks.crop_and_resize, []
    monkeypatch.setattr(BitMasks, "crop_and_resize", lambda *args: calls.append(crop(*args)) or calls[-1])
    with EventStorage(0):
        samples = build(tiny_cfg).generator_forward(inputs)[1]["mask"].samples
    assert len(calls) == len(inputs)
    assert torch.equal(torch.cat(calls).to(samples.truth.dtype), samples.truth) and samples.truth.any()
