"""PointRend, Cascade and class-agnostic heads: the stock model when off, the same game when on, exportable after."""

import itertools

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from small_models import AGNOSTIC, BOTH_PLAYERS, CASCADE, FEATURES, POINT_REND, build, losses_of, small

from gan_plugin.engine.export import (
    STOCK_MASK_HEADS,
    STOCK_META_ARCHITECTURES,
    STOCK_ROI_HEADS,
    build_stock_model,
    read_generator,
    stock_config,
    write_weights,
)

POINT_REND_AGNOSTIC = {
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
    "MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK": True,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
}
HEADS = {
    "standard": [BOTH_PLAYERS],
    "agnostic": [BOTH_PLAYERS, AGNOSTIC],
    "cascade": [BOTH_PLAYERS, CASCADE],
    "point_rend": [BOTH_PLAYERS, POINT_REND],
    "point_rend_agnostic": [BOTH_PLAYERS, POINT_REND, POINT_REND_AGNOSTIC],
    "coarse_only": [BOTH_PLAYERS, POINT_REND, {"MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": False}],
    "cascade_point_rend": [BOTH_PLAYERS, POINT_REND, CASCADE],
}
each_head = pytest.mark.parametrize("head", HEADS)


def stock(cfg):
    cfg = cfg.clone()
    model = cfg.MODEL
    model.GAN.ENABLED = False
    model.META_ARCHITECTURE = STOCK_META_ARCHITECTURES[model.META_ARCHITECTURE]
    model.ROI_HEADS.NAME = STOCK_ROI_HEADS[model.ROI_HEADS.NAME]
    model.ROI_MASK_HEAD.NAME = STOCK_MASK_HEADS[model.ROI_MASK_HEAD.NAME]
    return cfg


@each_head
@pytest.mark.parametrize("enabled", [False, True])
def test_the_generators_own_losses_are_the_stock_ones_bit_for_bit(tiny_cfg, make_inputs, head, enabled):
    cfg = small(tiny_cfg, *HEADS[head], {"MODEL.GAN.ENABLED": enabled})
    ours, theirs = build(cfg), build(stock(cfg))
    assert not any(type(module).__module__.startswith("gan_plugin") for module in theirs.modules())
    inputs = make_inputs(2, side=64)
    losses, expected = losses_of(ours, inputs), losses_of(theirs, inputs)
    added = {f"loss_{kind}" for kind in ("adv_mask", "rec_mask", "disc_mask", "adv_box", "disc_box")}
    assert losses.keys() - expected.keys() == (added if enabled else set())
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    names = [name for name in ours.state_dict() if not name.startswith("adversaries.")]
    assert names == list(theirs.state_dict())
    assert enabled or len(names) == len(ours.state_dict())
    if not enabled:
        sum(losses.values()).backward()
        sum(expected.values()).backward()
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a.grad, b.grad), name


@pytest.mark.parametrize("masks", [{}, FEATURES], ids=["pixels", "features"])
@each_head
def test_images_without_instances_in_every_combination(tiny_cfg, make_inputs, head, masks):
    """None or two instances in each of two images; truth, matching and weights as demanding as they come."""
    demanding = {
        "MODEL.GAN.MASK.REAL": "antialiased",
        "MODEL.GAN.MASK.MATCHING": "greedy",
        "MODEL.GAN.DIFFAUG": "translation,cutout,flip",
    }
    model = build(small(tiny_cfg, *HEADS[head], masks, demanding))
    disc = {name for name, _ in model.named_parameters() if name.startswith("adversaries.")}
    for first, second in itertools.product((0, 2), repeat=2):
        model.zero_grad()
        losses = losses_of(model, make_inputs(1, first, side=64) + make_inputs(1, second, seed=1, side=64))
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
        learns = any(gradients[name].any() for name in disc)
        assert learns == (first + second > 0)


@pytest.mark.parametrize("head", ["point_rend", "point_rend_agnostic", "coarse_only"])
def test_point_rends_adversarial_gradient_reaches_both_of_its_heads(tiny_cfg, make_inputs, head):
    model = build(small(tiny_cfg, *HEADS[head]))
    losses_of(model, make_inputs(1, side=64))["loss_adv_mask"].backward()
    mask_head = model.roi_heads.mask_head
    assert mask_head.coarse_head.prediction.weight.grad.any() and mask_head.coarse_head.fcs[0].weight.grad.any()
    assert model.backbone.bottom_up.res2[0].conv1.weight.grad.any()
    if head != "coarse_only":
        assert all(parameter.grad.any() for parameter in mask_head.point_head.parameters())


def test_the_discriminator_sees_what_point_rends_inference_starts_from(tiny_cfg, make_inputs):
    """Inference of the same boxes gives the probabilities of the samples. Stock PointRend doubles the coarse 7x7 to
    28x28 at once, where it would look at every point anyway, and here stops there."""
    subdivision = {"MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 28 * 28, "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 2}
    cfg = small(tiny_cfg, *HEADS["point_rend"], subdivision)
    model = build(cfg)
    seen = {}
    head = model.roi_heads.mask_head
    head.register_forward_hook(lambda module, inputs, output: seen.update(features=inputs[0], instances=inputs[1]))
    torch.manual_seed(0)
    with EventStorage(0):
        samples = model.generator_forward(make_inputs(2, side=64))[1]["mask"].samples
    for image in seen["instances"]:
        image.pred_boxes, image.pred_classes = image.proposal_boxes, image.gt_classes
    head.eval()
    with torch.no_grad():
        masks = torch.cat([image.pred_masks for image in head(seen["features"], seen["instances"])])
    assert masks.shape == (len(samples), 1, 28, 28) and len(samples) > 4
    torch.testing.assert_close(samples.logits.sigmoid(), masks[:, 0])


def test_cascade_hands_out_the_boxes_of_its_last_stage(tiny_cfg, make_inputs):
    model = build(small(tiny_cfg, *HEADS["cascade"]))
    predictors = model.roi_heads.box_predictor
    with EventStorage(0):
        losses, pairs = model.generator_forward(make_inputs(2, side=64))
    samples = pairs["box"].samples
    own = torch.autograd.grad(losses["loss_box_reg_stage2"], samples.output, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(samples.loss, samples.output, retain_graph=True)[0], own) and own.any()
    assert samples.output.shape[1] == predictors[2].bbox_pred.out_features
    gradients = torch.autograd.grad(
        samples.predicted.sum(), [p.bbox_pred.weight for p in predictors], allow_unused=True
    )
    assert gradients[0] is None and gradients[1] is None and gradients[2].any()


def test_boxes_alone_need_no_mask_head(tiny_cfg, make_inputs):
    keys = {"MODEL.MASK_ON": False, "MODEL.GAN.MASK.ENABLED": False}
    losses = losses_of(build(small(tiny_cfg, BOTH_PLAYERS, keys)), make_inputs(1, side=64))
    assert {name for name in losses if "adv" in name or "disc" in name} == {"loss_adv_box", "loss_disc_box"}
    assert not any("mask" in name for name in losses)


# PointRend's inference needs its point head, in stock Detectron2 as well
@pytest.mark.parametrize("head", [head for head in HEADS if head != "coarse_only"])
def test_stock_detectron2_loads_what_is_exported_and_predicts_the_same(tiny_cfg, make_inputs, tmp_path, head):
    cfg = small(tiny_cfg, *HEADS[head], {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0})
    # the small one is unknown to stock Detectron2
    cfg.MODEL.BACKBONE.NAME = tiny_cfg.MODEL.BACKBONE.NAME
    model = build(cfg)
    torch.save({"model": model.state_dict(), "iteration": 3}, tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    write_weights(read_generator(tmp_path / "model_final.pth"), tmp_path / "generator.pth")
    weights = torch.load(tmp_path / "generator.pth", weights_only=True)["model"]
    exported = stock_config(tmp_path / "config.yaml")
    assert "GAN" not in exported.MODEL
    build_model(exported).load_state_dict(weights, strict=True)
    image = [{key: make_inputs(1, side=64)[0][key] for key in ("image", "height", "width")}]
    with torch.no_grad():
        a, b = (m.eval()(image)[0]["instances"] for m in (model, build_stock_model(exported, weights)))
    assert len(a) > 0
    assert torch.equal(a.scores, b.scores) and torch.equal(a.pred_classes, b.pred_classes)
    assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor) and torch.equal(a.pred_masks, b.pred_masks)
