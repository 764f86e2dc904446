"""Both players in one model: who gets which gradient, and what stays exactly as it was."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.events import EventStorage
from small_models import build

from gan_plugin.errors import UserError
from gan_plugin.modeling.meta_arch import discriminator_parameters
from gan_plugin.modeling.samples import MaskSamples


def losses_of(model, inputs, iteration=0, seed=1):
    torch.manual_seed(seed)
    with EventStorage(iteration) as storage:
        return model(inputs), storage


def plain(cfg):
    cfg = switched_off(cfg)
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    return cfg


def switched_off(cfg):
    cfg = cfg.clone()
    cfg.MODEL.GAN.ENABLED = False
    return cfg


def gradient_norms(model):
    return {n: 0.0 if p.grad is None else p.grad.abs().sum().item() for n, p in model.named_parameters()}


def test_switched_off_is_the_plain_model_bit_for_bit(tiny_cfg, inputs):
    ours, stock = build(switched_off(tiny_cfg)), build(plain(tiny_cfg))
    assert ours.state_dict().keys() == stock.state_dict().keys()
    ours_losses, stock_losses = losses_of(ours, inputs)[0], losses_of(stock, inputs)[0]
    assert ours_losses == stock_losses and "loss_mask" in ours_losses
    sum(ours_losses.values()).backward()
    sum(stock_losses.values()).backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), stock.named_parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_the_generators_own_losses_do_not_change(tiny_cfg, inputs):
    adversarial, stock = losses_of(build(tiny_cfg), inputs)[0], losses_of(build(plain(tiny_cfg)), inputs)[0]
    for name, value in stock.items():
        assert torch.equal(adversarial[name], value), name
    assert set(adversarial) - set(stock) == {"loss_adv_mask", "loss_rec_mask", "loss_disc_mask"}


@pytest.mark.parametrize("loss", ["loss_adv_mask", "loss_rec_mask"])
def test_the_generators_adversarial_gradient_reaches_it_all_and_spares_the_discriminator(tiny_cfg, inputs, loss):
    model = build(tiny_cfg)
    losses_of(model, inputs)[0][loss].backward()
    norms = gradient_norms(model)
    for part in (
        "roi_heads.mask_head.predictor",
        "roi_heads.mask_head.mask_fcn1",
        "backbone.fpn_",
        "backbone.bottom_up.res2",
    ):
        assert sum(value for name, value in norms.items() if name.startswith(part)) > 0, part
    assert sum(value for name, value in norms.items() if name.startswith("adversaries.")) == 0


def test_the_discriminators_gradient_is_its_own(tiny_cfg, inputs):
    model = build(tiny_cfg)
    losses_of(model, inputs)[0]["loss_disc_mask"].backward()
    norms = gradient_norms(model)
    of_disc = [value for name, value in norms.items() if name.startswith("adversaries.")]
    assert min(of_disc) > 0
    assert sum(norms.values()) == pytest.approx(sum(of_disc))


def test_gradient_of_the_sum_is_what_each_player_wants(tiny_cfg, inputs):
    tiny_cfg.MODEL.GAN.DISC_LR_FACTOR = 0.25
    whole, alone = build(tiny_cfg), build(tiny_cfg)
    alone.disc_lr_factor = 1.0
    sum(losses_of(whole, inputs)[0].values()).backward()
    losses_of(alone, inputs)[0]["loss_disc_mask"].backward()
    for a, b in zip(discriminator_parameters(whole), discriminator_parameters(alone), strict=True):
        torch.testing.assert_close(a.grad, b.grad * 0.25)


def test_generators_pass_leaves_batch_norm_statistics_alone(tiny_cfg, inputs):
    tiny_cfg.MODEL.GAN.MASK.NORM = "BN"
    model = build(tiny_cfg)
    before = {name: buffer.clone() for name, buffer in model.adversaries["mask"].named_buffers()}
    with EventStorage(0):
        _, pairs = model.generator_forward(inputs)
        model.adversarial_losses(pairs)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.adversaries["mask"].named_buffers())
        model.discriminator_losses(pairs)
    counts = [b.item() for name, b in model.adversaries["mask"].named_buffers() if name.endswith("num_batches_tracked")]
    assert counts and set(counts) == {2}


@pytest.mark.parametrize("norm", ["BN", "GN", ""])
@pytest.mark.parametrize("agnostic", [False, True])
def test_no_instances_gives_zeros_that_touch_every_parameter(tiny_cfg, make_inputs, norm, agnostic):
    tiny_cfg.MODEL.GAN.MASK.NORM = norm
    tiny_cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = agnostic
    model = build(tiny_cfg)
    losses = losses_of(model, make_inputs(instances=0))[0]
    assert {name: losses[name].item() for name in losses if "adv" in name or "rec" in name or "disc" in name} == {
        "loss_adv_mask": 0,
        "loss_rec_mask": 0,
        "loss_disc_mask": 0,
    }
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in discriminator_parameters(model))
    assert all(p.grad is not None for p in model.roi_heads.mask_head.parameters())
    sum(losses_of(model, make_inputs())[0].values()).backward()


def test_one_image_without_instances_among_others(tiny_cfg, make_inputs):
    tiny_cfg.MODEL.GAN.MASK.MATCHING = "greedy"
    tiny_cfg.MODEL.GAN.MASK.REAL = "antialiased"
    model = build(tiny_cfg)
    mixed = make_inputs(1, instances=0) + make_inputs(1, instances=2)
    assert losses_of(model, mixed)[0]["loss_disc_mask"].item() > 0


def test_start_and_warm_up(tiny_cfg, inputs):
    tiny_cfg.MODEL.GAN.START_ITER = 10
    tiny_cfg.MODEL.GAN.WARMUP_ITERS = 4
    model = build(tiny_cfg)
    at = {i: losses_of(model, inputs, iteration=i)[0] for i in (9, 10, 11, 13, 50)}
    assert at[9]["loss_adv_mask"] == at[9]["loss_rec_mask"] == at[9]["loss_disc_mask"] == 0
    full = at[50]["loss_rec_mask"].item()
    shares = [at[i]["loss_rec_mask"].item() / full for i in (10, 11, 13)]
    assert shares == pytest.approx([0.25, 0.5, 1.0], rel=1e-4)
    assert at[10]["loss_disc_mask"] > 0


def test_records_verdicts_and_both_totals(tiny_cfg, inputs):
    losses, storage = losses_of(build(tiny_cfg), inputs)
    latest = {name: value for name, (value, _) in storage.latest().items()}
    assert (
        0 < latest["gan/mask/d_real"] < 1
        and 0 < latest["gan/mask/d_fake"] < 1
        and 0 <= latest["gan/mask/d_accuracy"] <= 1
    )
    disc = losses["loss_disc_mask"].item()
    assert latest["loss_disc_total"] == pytest.approx(disc)
    assert latest["loss_gen_total"] == pytest.approx(sum(v.item() for v in losses.values()) - disc, rel=1e-5)


def test_checkpoints_go_both_ways(tiny_cfg, inputs, tmp_path):
    stock, ours = build(plain(tiny_cfg), seed=3), build(tiny_cfg, seed=4)
    DetectionCheckpointer(stock, str(tmp_path)).save("plain")
    DetectionCheckpointer(ours).load(str(tmp_path / "plain.pth"))
    DetectionCheckpointer(ours, str(tmp_path)).save("gan")
    back = build(plain(tiny_cfg), seed=5)
    DetectionCheckpointer(back).load(str(tmp_path / "gan.pth"))
    results = [model.eval()(inputs)[0]["instances"] for model in (stock, ours, back)]
    for other in results[1:]:
        assert torch.equal(results[0].scores, other.scores)
        assert torch.equal(results[0].pred_boxes.tensor, other.pred_boxes.tensor)
        assert torch.equal(results[0].pred_masks, other.pred_masks)
    for name, value in stock.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODE", "both"),
        ("MASK.FAKE", "hard"),
        ("MASK.REAL", "soft"),
        ("MASK.MATCHING", "best"),
        ("MASK.NORM", "XN"),
    ],
)
def test_unknown_choices_list_the_known(tiny_cfg, key, value):
    tiny_cfg.merge_from_list([f"MODEL.GAN.{key}", value])
    with pytest.raises(UserError, match=f"MODEL.GAN.{key} is '{value}'.*known ones are '"):
        build(tiny_cfg)


def test_a_trainer_that_only_knows_forward_cannot_alternate(tiny_cfg, inputs):
    tiny_cfg.MODEL.GAN.MODE = "alternating"
    with pytest.raises(UserError, match="AdversarialTrainer in place of DefaultTrainer"):
        losses_of(build(tiny_cfg), inputs)


@pytest.mark.parametrize(
    "objective, real, fake", [("NonSaturatingBCE", [2.0, -1.0], [-3.0, -1.0]), ("LSGAN", [1.0, 0.2], [0.0, 0.4])]
)
def test_recorded_accuracy_is_the_share_of_right_verdicts(tiny_cfg, inputs, objective, real, fake):
    """One real of two is taken for fake; both fakes are recognised: three of four."""
    tiny_cfg.MODEL.GAN.MASK.OBJECTIVE = objective
    adversary = build(tiny_cfg).adversaries["mask"]
    answers = [torch.tensor(real, requires_grad=True), torch.tensor(fake, requires_grad=True)]
    adversary.discriminator.forward = lambda masks: answers.pop(0)
    samples = MaskSamples(
        torch.zeros(2, 28, 28), torch.ones(2, 28, 28), torch.ones(2, dtype=torch.bool), *[torch.zeros(2)] * 2
    )
    with EventStorage(0) as storage:
        adversary.discriminator_losses(adversary.present(samples))
    assert storage.latest()["gan/mask/d_accuracy"][0] == 0.75
