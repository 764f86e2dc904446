"""The box player: what it sees, and the one way on which its gradient reaches the generator."""

from dataclasses import replace

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from small_models import AGNOSTIC, BOTH_PLAYERS, CASCADE, build, losses_of, small

from gan_plugin.modeling.roi_source import box_samples

CHANNELS, CLASSES = 16, 2


@pytest.fixture
def model(tiny_cfg):
    """With absolute weights, so that the loss is a function of the boxes."""
    return build(small(tiny_cfg, BOTH_PLAYERS, {"MODEL.GAN.LABELS.FLIP_PROB": 0.0, "MODEL.GAN.BALANCE.SHARE": 0.0}))


def proposals_of(predictor, count, seed=0):
    """Two images of proposals, foreground and background, and deltas that push some boxes over the border."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for size in ((60, 80), (90, 50)):
        image = Instances(size)
        corner = torch.rand(count, 2, generator=generator) * 30
        image.proposal_boxes = Boxes(
            torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 40], 1)
        )
        corner = torch.rand(count, 2, generator=generator) * 30
        image.gt_boxes = Boxes(torch.cat([corner, corner + 20], 1))
        image.gt_classes = torch.randint(0, CLASSES + 1, (count,), generator=generator)
        images.append(image)
    deltas = torch.randn(2 * count, predictor.bbox_pred.out_features, generator=generator) * 3
    scores = torch.randn(2 * count, CLASSES + 1, generator=generator)
    return (scores, deltas.requires_grad_(True)), images


@pytest.mark.parametrize("agnostic", [False, True])
def test_samples_are_detectron2s_boxes_for_the_true_class_clipped(tiny_cfg, agnostic):
    cfg = small(tiny_cfg, BOTH_PLAYERS, AGNOSTIC if agnostic else {})
    predictor = build(cfg).roi_heads.box_predictor
    predictions, proposals = proposals_of(predictor, 30)
    samples = box_samples(predictor, predictions, proposals)
    # for the background any class will do, and is left out afterwards
    asked = [replace_classes(image, image.gt_classes.clamp(max=CLASSES - 1)) for image in proposals]
    decoded = [Boxes(boxes.clone()) for boxes in predictor.predict_boxes_for_gt_classes(predictions, asked)]
    for boxes, image in zip(decoded, proposals, strict=True):
        boxes.clip(image.image_size)
    positive = torch.cat([image.gt_classes for image in proposals]) < CLASSES
    assert torch.equal(samples.predicted, torch.cat([boxes.tensor for boxes in decoded])[positive])
    assert torch.equal(samples.truth, torch.cat([image.gt_boxes.tensor for image in proposals])[positive])
    assert torch.equal(samples.images, torch.tensor([0] * 30 + [1] * 30)[positive])
    assert torch.equal(samples.classes, torch.cat([image.gt_classes for image in proposals])[positive])
    assert len(samples) == positive.sum() > 20
    # some were clipped, or the test would say nothing about it
    assert (samples.predicted[:, 3] == 60).any() and (samples.predicted[:, 2] == 50).any()


def replace_classes(image, classes):
    copy = Instances(image.image_size, **image.get_fields())
    copy.gt_classes = classes
    return copy


@pytest.mark.parametrize("pooling", ["level", "max"])
def test_real_is_pooled_from_the_annotated_box_and_fake_from_the_predicted(tiny_cfg, make_inputs, pooling):
    model = build(small(tiny_cfg, BOTH_PLAYERS, {"MODEL.GAN.ROI_POOLING": pooling}))
    with EventStorage(0):
        pair = model.generator_forward(make_inputs(2, side=64))[1]["box"]
    assert not pair.real.requires_grad and pair.fake.requires_grad
    perfect = model.adversaries["box"].present(replace(pair.samples, predicted=pair.samples.truth))
    assert torch.equal(perfect.real, perfect.fake) and torch.equal(perfect.real, pair.real)
    assert not torch.equal(pair.real, pair.fake)
    assert pair.real.shape == (len(pair), CHANNELS, 7, 7) and len(pair) > 4
    # each from its own image: swapped images with swapped indices change nothing
    samples = pair.samples
    swapped = replace(samples, images=1 - samples.images, features=tuple(f.flip(0) for f in samples.features))
    again = model.adversaries["box"].present(swapped)
    assert torch.equal(again.real, pair.real) and torch.equal(again.fake, pair.fake)


def adversarial_loss(model, samples):
    adversary = model.adversaries["box"]
    with EventStorage(0):
        return adversary.generator_losses(adversary.present(samples))["loss_adv_box"]


def test_the_gradient_reaches_the_generator_through_the_boxes_alone(model, make_inputs):
    """Chained by hand: d loss / d coordinates first, then from the coordinates on; and nothing beside it."""
    with EventStorage(0):
        samples = model.generator_forward(make_inputs(2, side=64))[1]["box"].samples
    generator = [p for name, p in model.named_parameters() if not name.startswith("adversaries.")]
    loss = adversarial_loss(model, samples)
    direct = torch.autograd.grad(loss, generator, retain_graph=True, allow_unused=True)

    cut = samples.predicted.detach().requires_grad_(True)
    (of_boxes,) = torch.autograd.grad(adversarial_loss(model, replace(samples, predicted=cut)), cut)
    by_hand = torch.autograd.grad(samples.predicted, generator, of_boxes, retain_graph=True, allow_unused=True)
    for ours, theirs in zip(direct, by_hand, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs)
    names = [name for name, _ in model.named_parameters() if not name.startswith("adversaries.")]
    reached = {name for name, grad in zip(names, direct, strict=True) if grad is not None and grad.any()}
    assert "roi_heads.box_predictor.bbox_pred.weight" in reached and "backbone.bottom_up.res2.0.conv1.weight" in reached
    assert not any("cls_score" in name or "mask_head" in name or "proposal_generator" in name for name in reached)
    # with the boxes cut off, the features that were pooled are no way around
    detached = adversarial_loss(model, replace(samples, predicted=samples.predicted.detach()))
    assert not detached.requires_grad


def test_gradient_of_the_deltas_by_finite_differences(model):
    """Through decoding, clipping, pooling and discriminator, in double precision but for the decoding's float32."""
    predictor, adversary = model.roi_heads.box_predictor, model.adversaries["box"]
    adversary.double()
    predictions, proposals = proposals_of(predictor, 3, seed=4)
    # smooth maps: finite differences do not see far round the corners of the bilinear surface
    waves = torch.linspace(0.02, 0.08, CHANNELS, dtype=torch.float64)[:, None, None]
    features = []
    for stride in (4, 8, 16, 32):
        at = torch.arange(96 // stride, dtype=torch.float64) * stride
        features.append((waves * at[:, None] + 2 * waves * at).sin().expand(2, -1, -1, -1))

    def loss_at(deltas):
        samples = box_samples(predictor, (predictions[0], deltas), proposals)
        return adversarial_loss(model, replace(samples, features=tuple(features))) / adversary.weight

    deltas = predictions[1].detach() / 3
    deltas.requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss_at(deltas), deltas)
    step, touched = 1e-3, gradient.nonzero().tolist()
    assert len(touched) >= 8
    scale = gradient.abs().max().item()
    for row, column in touched:
        values = []
        for sign in (1, -1):
            moved = deltas.detach().clone()
            moved[row, column] += sign * step
            values.append(loss_at(moved).item())
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(gradient[row, column].item(), rel=0.02, abs=0.01 * scale)


def test_the_background_and_the_other_class_are_left_alone(model):
    predictor = model.roi_heads.box_predictor
    predictions, proposals = proposals_of(predictor, 20)
    samples = box_samples(predictor, predictions, proposals)
    (gradient,) = torch.autograd.grad(samples.predicted.sum(), predictions[1])
    classes = torch.cat([image.gt_classes for image in proposals])
    touched = gradient.view(-1, CLASSES, 4).abs().sum(2) > 0
    assert not touched[classes == CLASSES].any()
    assert all(row.nonzero().flatten().tolist() in ([kind], []) for row, kind in zip(touched, classes, strict=True))
    assert touched.any()


@pytest.mark.parametrize("changes", [{}, AGNOSTIC, CASCADE], ids=["class", "agnostic", "cascade"])
def test_no_positives_give_zeros_that_touch_every_parameter(tiny_cfg, make_inputs, changes):
    model = build(small(tiny_cfg, BOTH_PLAYERS, changes))
    losses = losses_of(model, make_inputs(2, instances=0, side=64))
    assert losses["loss_adv_box"] == losses["loss_disc_box"] == 0
    sum(losses.values()).backward()
    predictor = model.roi_heads.box_predictor
    last = predictor[-1] if isinstance(predictor, torch.nn.ModuleList) else predictor
    for parameter in [last.bbox_pred.weight, *model.adversaries["box"].parameters()]:
        assert parameter.grad is not None and not parameter.grad.any()
