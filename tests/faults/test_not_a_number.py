"""NaN in either player: the run stops at once and says where, and no checkpoint has it."""

from pathlib import Path

import pytest
import torch
from support import load

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.modeling.meta_arch import discriminator_parameters

AT = 3


def spoil(tensor):
    with torch.no_grad():
        tensor.view(-1)[0] = float("nan")


def generators(model, name):
    return dict(model.named_parameters())[name]


WEIGHTS = {
    "of the mask head": lambda model: generators(model, "roi_heads.mask_head.predictor.weight"),
    "of the box head": lambda model: generators(model, "roi_heads.box_predictor.cls_score.weight"),
    "of the backbone": lambda model: generators(model, "backbone.bottom_up.stem.conv1.weight"),
    "of the proposals": lambda model: generators(model, "proposal_generator.rpn_head.anchor_deltas.weight"),
    "of the discriminator": lambda model: discriminator_parameters(model)[0],
    "of the discriminator's last layer": lambda model: discriminator_parameters(model)[-1],
}
LOSSES = {
    "of the mask head": ["loss_mask", "loss_disc_mask", "loss_adv_mask"],
    "of the box head": ["loss_cls", "Predicted boxes or scores contain Inf/NaN"],
    "of the backbone": ["loss_rpn_cls", "Predicted boxes or scores contain Inf/NaN"],
    "of the proposals": ["loss_rpn_loc", "Predicted boxes or scores contain Inf/NaN"],
    "of the discriminator": ["loss_disc_mask"],
    "of the discriminator's last layer": ["loss_disc_mask"],
}


def assert_finite(value, name=""):
    if isinstance(value, torch.Tensor):
        assert not value.is_floating_point() or bool(torch.isfinite(value).all()), name
    elif isinstance(value, dict):
        for key, inner in value.items():
            assert_finite(inner, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            assert_finite(inner, f"{name}/{index}")


def run_until_it_stops(cfg, mode, fault):
    """Train with `fault(model)` called before iteration AT; the sentence that ended it."""
    cfg.MODEL.GAN.MODE, cfg.MODEL.GAN.EMA.DECAY = mode, 0.9
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2 * AT, 2
    trainer = AdversarialTrainer(cfg)
    step = trainer._trainer.run_step

    def spoiled_step():
        if trainer.iter == AT:
            fault(trainer.model)
        step()

    trainer._trainer.run_step = spoiled_step
    with pytest.raises(UserError) as stopped:
        trainer.train()
    assert trainer.iter == AT
    return str(stopped.value)


def assert_the_last_checkpoint_is_good(cfg):
    out = Path(cfg.OUTPUT_DIR)
    assert (out / "last_checkpoint").read_text() == "model_0000001.pth"
    assert [path.name for path in out.glob("*.pth*")] == ["model_0000001.pth"]
    assert_finite(load(cfg, "model_0000001.pth"))


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_weight(run_cfg, mode, weight):
    said = run_until_it_stops(run_cfg, mode, lambda model: spoil(WEIGHTS[weight](model)))
    assert said.startswith(f"Training stopped at iteration {AT}: ")
    assert any(loss in said for loss in LOSSES[weight]), said
    assert_the_last_checkpoint_is_good(run_cfg)


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("loss", ["loss_mask", "loss_rpn_cls", "loss_adv_mask", "loss_disc_mask"])
def test_a_loss(run_cfg, mode, loss, monkeypatch):
    names = ["generator_forward", "adversarial_losses", "discriminator_losses"]

    def fault(model):
        for name in names:
            monkeypatch.setattr(model, name, spoiling(getattr(model, name)))

    def spoiling(original):
        def spoiled(*arguments, **options):
            result = original(*arguments, **options)
            losses = result[0] if isinstance(result, tuple) else result
            if loss in losses:
                losses[loss] = losses[loss] * float("nan")
            return result

        return spoiled

    assert f"iteration {AT}: {loss} is nan" in run_until_it_stops(run_cfg, mode, fault)
    assert_the_last_checkpoint_is_good(run_cfg)


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("player", ["of the mask head", "of the discriminator"])
def test_a_gradient(run_cfg, mode, player, monkeypatch):
    """The losses are finite and the step spoils the weight, in an iteration that ends with a checkpoint."""

    def fault(model):
        WEIGHTS[player](model).register_hook(lambda gradient: gradient * float("nan"))

    said = run_until_it_stops(run_cfg, mode, fault)
    if player == "of the discriminator" and mode == "alternating":
        # its step comes first, and the generator's loss is asked of what it has become
        assert said.startswith(f"Training stopped at iteration {AT}: loss_adv_mask is nan")
    else:
        assert said.startswith(f"model_000000{AT}.pth was not written because ")
        assert f"is no longer finite after iteration {AT};" in said
    assert_the_last_checkpoint_is_good(run_cfg)
