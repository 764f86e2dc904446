"""What a project's own trainer, LazyConfig and keys say stays in force; and its models are exported as its own."""

import copy
import itertools
import json
import sys
from pathlib import Path

import export_generator
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall, LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.modeling import build_model
from detectron2.utils.events import get_event_storage
from foreign_models import KINDS, foreign_cfg, shallow_backbone
from small_models import CHANNELS, losses_of
from support import exit_code

from gan_plugin import AdversarialTrainer, UserError, add_gan_config, make_adversarial
from gan_plugin.engine.setup import default_config
from gan_plugin.modeling import AdversarialRCNN
from gan_plugin.modeling.meta_arch import discriminator_parameters


class OwnMapper(DatasetMapper):
    seen = 0

    def __call__(self, record):
        OwnMapper.seen += 1
        return super().__call__(record)


class ValidationLosses(HookBase):
    """As such hooks are written: the model stays in training mode."""

    def __init__(self, batches):
        self.batches = batches
        self.found = []

    def after_step(self):
        # with gradients and without: some, detectree2's among them, forget to switch them off
        for enabled in (False, True):
            with torch.set_grad_enabled(enabled):
                for batch in self.batches:
                    self.found.append({name: loss.item() for name, loss in self.trainer.model(batch).items()})
        get_event_storage().put_scalar("validation_loss", sum(self.found[-1].values()))


class FullModelClipping(torch.optim.SGD):
    """Clips the gradient of all that it holds at once, as Mask2Former's does."""

    def step(self, closure=None):
        everything = list(itertools.chain(*(group["params"] for group in self.param_groups)))
        self.norm = torch.nn.utils.clip_grad_norm_(everything, 0.01)
        super().step(closure)


class OwnTrainer(AdversarialTrainer):
    @classmethod
    def build_optimizer(cls, cfg, model):
        groups = [{"params": [p], "lr": 0.002 if "backbone" in n else 0.02} for n, p in model.named_parameters()]
        return FullModelClipping(groups, 0.02)

    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg, mapper=OwnMapper(cfg, is_train=True))

    def build_hooks(self):
        hooks = super().build_hooks()
        self.validation = ValidationLosses([next(iter(self.data_loader))])
        hooks.insert(-1, self.validation)
        return hooks


class ForgetfulTrainer(OwnTrainer):
    """Its optimizer knows the parts of the model that its author knew."""

    @classmethod
    def build_optimizer(cls, cfg, model):
        return FullModelClipping([*model.backbone.parameters(), *model.roi_heads.parameters()], 0.02)


def own_cfg(run_cfg, mode, kind="own mask head"):
    cfg = foreign_cfg(*KINDS[kind], {"MODEL.GAN.MODE": mode})
    cfg.OUTPUT_DIR, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = run_cfg.OUTPUT_DIR, run_cfg.DATASETS.TRAIN, ()
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "bitmask", (64,)
    cfg.DATALOADER.NUM_WORKERS, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 0, 1, 3
    cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.OPTIMIZER = (), 0, "FULL_MODEL_SGD"
    return cfg


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("kind", [OwnTrainer, ForgetfulTrainer])
def test_own_optimizer_loader_mapper_and_validation_hook(run_cfg, mode, kind):
    """Three iterations; each optimizer holds what is its own, once."""
    cfg = own_cfg(run_cfg, mode)
    OwnMapper.seen = 0
    torch.manual_seed(0)
    trainer = kind(cfg)
    players = {id(p) for p in discriminator_parameters(trainer.model)}
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    held = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert isinstance(trainer.optimizer, FullModelClipping) and trainer.optimizer.norm > 0.01
    assert len(held) == len(set(held)) and OwnMapper.seen >= 4
    assert (players & set(held) == set()) if mode == "alternating" else players <= set(held)
    if kind is OwnTrainer:
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.002, 0.02}
        others = {id(p) for p in trainer.model.parameters()} - players
        assert set(held) - players == others
    moved = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "roi_heads.mask_head.mask_predictor.weight" in moved and any(n.startswith("adversaries.") for n in moved)
    # the validation hook sees the generator's own losses
    for losses in trainer.validation.found:
        assert {"loss_mask", "loss_boundary"} <= losses.keys()
        assert not any(name.startswith(("loss_disc_", "loss_adv_")) for name in losses)
    metrics = json.loads((Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()[-1])
    assert metrics["loss_adv_mask"] > 0 and metrics["loss_disc_mask"] > 0 and metrics["validation_loss"] > 0


class StockTrainer(DefaultTrainer):
    """Detectron2's own, with the hook that its author has given it."""

    def build_hooks(self):
        self.validation = ValidationLosses([next(iter(build_detection_train_loader(self.cfg)))])
        return [self.validation, *super().build_hooks()]


def test_a_validation_hook_of_a_trainer_that_knows_nothing_of_us(run_cfg):
    cfg = own_cfg(run_cfg, "joint")
    cfg.SOLVER.OPTIMIZER = "sgd"
    trainer = StockTrainer(cfg)
    trainer.train()
    assert len(trainer.validation.found) == 6
    for losses in trainer.validation.found:
        assert {"loss_mask", "loss_boundary"} <= losses.keys()
        assert not any(name.startswith(("loss_disc_", "loss_adv_")) for name in losses)
    metrics = json.loads((Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()[-1])
    assert metrics["loss_adv_mask"] > 0 and metrics["loss_disc_mask"] > 0 and metrics["validation_loss"] > 0


def test_the_name_of_an_own_optimizer_is_nobody_elses_business(run_cfg):
    cfg = own_cfg(run_cfg, "joint")
    OwnTrainer(cfg)
    with pytest.raises(UserError, match="SOLVER.OPTIMIZER is 'FULL_MODEL_SGD', which is unknown"):
        AdversarialTrainer(cfg)


def test_keys_are_added_before_or_after_those_of_a_project():
    """A project that has keys of our names keeps its values, whoever comes first; the rest of ours is there."""

    def add_their_config(cfg):
        cfg.SOLVER.OPTIMIZER = "ADAMW"
        cfg.SOLVER.BETAS = (0.8, 0.9)
        cfg.MODEL.THEIRS = 3
        cfg.TEST.BOUNDARY_AP = True

    orders = []
    for order in ((add_gan_config, add_their_config), (add_their_config, add_gan_config)):
        cfg = get_cfg()
        for add in order:
            add(cfg)
        orders.append(cfg)
    assert orders[0] == orders[1]
    assert orders[0].SOLVER.OPTIMIZER == "ADAMW" and orders[0].MODEL.GAN == default_config().MODEL.GAN


def small_node():
    """Detectron2's Mask R-CNN with FPN on the small backbone."""
    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone = LazyCall(shallow_backbone)()
    heads = model.roi_heads
    model.proposal_generator.head.in_channels = CHANNELS
    heads.num_classes, heads.batch_size_per_image = 2, 8
    heads.box_head.input_shape.channels = heads.mask_head.input_shape.channels = CHANNELS
    heads.box_head.fc_dims, heads.box_predictor.input_shape.channels = [CHANNELS], CHANNELS
    heads.mask_head.conv_dims = [CHANNELS, CHANNELS]
    return model


def test_a_lazy_node_in_one_call(make_inputs, tmp_path):
    """The node keeps what it says; with the same weights the model has the same losses of its own; and it exports."""
    plain, edited = small_node(), small_node()
    assert make_adversarial(edited) is edited
    assert all(edited[name] == value for name, value in plain.items() if name != "_target_")
    mask = edited.adversaries.mask.discriminator
    mask.input_size, mask.channels, mask.norm = 32, (8, 8, 8, 8), "GN"
    model, stock = instantiate(edited).train(), instantiate(plain).train()
    assert isinstance(model, AdversarialRCNN)
    stock.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("adversaries.")})
    inputs = make_inputs(1, side=64)
    expected = losses_of(stock, inputs)
    losses = losses_of(model, inputs)
    assert losses.keys() - expected.keys() == {"loss_adv_mask", "loss_rec_mask", "loss_disc_mask"}
    assert all(torch.equal(losses[name], value) for name, value in expected.items())
    with pytest.raises(UserError, match="one already; call it once"):
        make_adversarial(edited)

    torch.save({"model": model.state_dict()}, tmp_path / "model_final.pth")
    LazyConfig.save(type(edited)({"model": edited}, flags={"allow_objects": True}), str(tmp_path / "config.yaml"))
    out = tmp_path / "out.pth"
    assert exit_code(export_generator.main, tmp_path / "model_final.pth", out) == 0
    options = ["--force", "--config-file", tmp_path / "config.yaml", "--import", "foreign_models"]
    assert exit_code(export_generator.main, tmp_path / "model_final.pth", out, *options) == 0
    assert torch.load(out, weights_only=True)["model"].keys() == stock.state_dict().keys()


def test_a_projects_model_is_exported_with_its_module(tmp_path, capsys, monkeypatch):
    """`--import` registers what Detectron2 has not; its config keeps the project's keys and loses ours."""
    cfg = foreign_cfg(*KINDS["own meta-architecture"])
    model = build_model(cfg)
    (tmp_path / "run").mkdir()
    checkpoint, out = tmp_path / "run/model_final.pth", tmp_path / "out.pth"
    torch.save({"model": model.state_dict()}, checkpoint)
    (tmp_path / "run/config.yaml").write_text(cfg.dump())
    monkeypatch.chdir(Path(__file__).parent.parent)
    arguments = [checkpoint, out, "--config-out", tmp_path / "out.yaml"]
    assert exit_code(export_generator.main, *arguments, "--import", "no_such_module") == 2
    assert "--import no_such_module failed" in capsys.readouterr().err
    assert exit_code(export_generator.main, *arguments) == 2
    assert "with --import MODULE, or leave the check out with --no-check" in capsys.readouterr().err
    assert not out.exists()
    assert exit_code(export_generator.main, *arguments, "--import", "foreign_models") == 0
    assert "fits the model of foreign_models" in capsys.readouterr().out
    theirs = get_cfg()
    theirs.MODEL.EDGE_WEIGHT = 0.0
    theirs.merge_from_file(str(tmp_path / "out.yaml"))
    assert theirs.MODEL.EDGE_WEIGHT == 0.5 and "gan_plugin" in sys.modules
    plain = build_model(theirs)
    plain.load_state_dict(torch.load(out, weights_only=True)["model"], strict=True)
    assert exit_code(export_generator.main, checkpoint, tmp_path / "unseen.pth", "--no-check") == 0
    assert "not checked" in capsys.readouterr().out
