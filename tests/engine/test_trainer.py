"""The trainer as its user sees it: exact resume, what it writes, how it ends."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.modeling import build_model

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.engine.checkpoint import SafeCheckpointer
from gan_plugin.engine.hooks import TrainingInterrupted
from gan_plugin.modeling.meta_arch import discriminator_parameters


def train(cfg, resume=False):
    torch.manual_seed(0)
    trainer = AdversarialTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def load(cfg, name="model_final.pth"):
    return torch.load(Path(cfg.OUTPUT_DIR) / name, weights_only=True)


def assert_same(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{path}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


@pytest.mark.parametrize("mode, optimizer", [("joint", "sgd"), ("alternating", "adamw")])
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(run_cfg, tmp_path, mode, optimizer):
    """Everything in the last checkpoint: both players, optimizers, schedules, the average, random states.

    The unbroken run evaluates on the way and the resumed one does not, so evaluation is shown to disturb nothing.
    """
    cfg = run_cfg
    cfg.MODEL.GAN.MODE, cfg.SOLVER.OPTIMIZER, cfg.SOLVER.DISC.SCHEDULE = mode, optimizer, "follow"
    cfg.MODEL.GAN.MASK.NORM = "BN"
    cfg.MODEL.GAN.EMA.DECAY = 0.9
    cfg.MODEL.GAN.MASK.INSTANCE_NOISE = 0.1
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD = 6, (4,), 3
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = ("penn_fudan_val",), 2
    train(cfg)
    resumed = cfg.clone()
    resumed.OUTPUT_DIR = str(tmp_path / "resumed")
    resumed.DATASETS.TEST, resumed.TEST.EVAL_PERIOD = (), 0
    os.makedirs(resumed.OUTPUT_DIR)
    shutil.copy(f"{cfg.OUTPUT_DIR}/model_0000002.pth", resumed.OUTPUT_DIR)
    Path(resumed.OUTPUT_DIR, "last_checkpoint").write_text("model_0000002.pth")
    torch.manual_seed(123)
    trainer = train(resumed, resume=True)
    assert trainer.start_iter == 3
    assert_same(load(cfg), load(resumed))
    expected = "disc_optimizer" if mode == "alternating" else "optimizer"
    assert expected in load(cfg)["trainer"]["_trainer"]
    assert_same(load(cfg, "model_final_ema.pth"), load(resumed, "model_final_ema.pth"))


def test_writes_what_a_user_of_detectron2_expects(run_cfg, caplog):
    cfg = run_cfg
    cfg.MODEL.GAN.MODE = "alternating"
    cfg.MODEL.GAN.VIS_PERIOD, cfg.MODEL.GAN.EMA.DECAY = 2, 0.5
    cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = 20, ("penn_fudan_val",), 10
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = "adamw", 2e-3
    with caplog.at_level("INFO", logger="gan_plugin"):
        train(cfg)
    assert [r for r in caplog.messages if "D(real): " in r and "lr_disc: 0.0002" in r and "|grad D|: " in r]
    out = Path(cfg.OUTPUT_DIR)
    metrics = {}
    for line in (out / "metrics.json").read_text().splitlines():
        metrics.update(json.loads(line))
    losses = ["loss_cls", "loss_mask", "loss_rpn_loc", "loss_adv_mask", "loss_rec_mask", "loss_disc_mask"]
    totals = ["loss_gen_total", "loss_disc_total", "gan/d_real", "gan/d_fake", "gan/d_accuracy"]
    rates = ["lr", "lr_disc", "grad_norm/generator", "grad_norm/discriminator"]
    for name in losses + totals + rates:
        assert isinstance(metrics[name], float), name
    assert metrics["lr"] == pytest.approx(2e-3) and metrics["lr_disc"] == pytest.approx(2e-4)
    assert len(list((out / "samples").glob("iter_*.png"))) == 10
    assert list(out.glob("events.out.tfevents*"))
    assert (out / "inference/coco_instances_results.json").exists() and (out / "ema/inference").is_dir()
    assert (out / "last_checkpoint").read_text() == "model_final.pth"


def test_plain_run_has_no_second_player(run_cfg):
    run_cfg.MODEL.GAN.ENABLED = False
    run_cfg.MODEL.GAN.MODE = "alternating"
    train(run_cfg)
    state = load(run_cfg)
    assert not [name for name in state["model"] if "adversary" in name]
    assert "disc_optimizer" not in state["trainer"]["_trainer"]


def scripted(monkeypatch, scores):
    """Make evaluation return the given segm/AP one after another; for the average, 10 more."""
    scores, last = list(scores), []

    def test(cls, cfg, model, evaluators=None):
        if cfg.OUTPUT_DIR.endswith("ema"):
            return {"segm": {"AP": last[0] + 10}}
        last[:] = [scores.pop(0)]
        return {"segm": {"AP": last[0]}}

    monkeypatch.setattr(AdversarialTrainer, "test", classmethod(test))


def test_the_best_checkpoint_is_the_best_and_survives_a_resume(run_cfg, monkeypatch):
    cfg = run_cfg
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD, cfg.TEST.BEST_METRIC = ("penn_fudan_val",), 1, "segm/AP"
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER = 1, 4
    scripted(monkeypatch, [20.0, 30.0, 25.0, 28.0])
    train(cfg)
    best = Path(cfg.OUTPUT_DIR, "model_best.json")
    assert json.loads(best.read_text()) == {"metric": "segm/AP", "value": 30.0, "iteration": 1}
    assert_same(load(cfg, "model_best.pth")["model"], load(cfg, "model_0000001.pth")["model"])
    cfg.SOLVER.MAX_ITER = 6
    scripted(monkeypatch, [29.0, 31.0])
    train(cfg, resume=True)
    assert json.loads(best.read_text())["value"] == 31.0
    assert_same(load(cfg, "model_best.pth")["model"], load(cfg)["model"])
    best.write_text("")
    cfg.SOLVER.MAX_ITER = 7
    scripted(monkeypatch, [1.0])
    train(cfg, resume=True)
    assert json.loads(best.read_text())["value"] == 1.0


def test_the_best_average_is_saved_as_the_average(run_cfg, monkeypatch):
    run_cfg.DATASETS.TEST, run_cfg.TEST.BEST_METRIC = ("penn_fudan_val",), "ema/segm/AP"
    run_cfg.MODEL.GAN.EMA.DECAY = 0.5
    scripted(monkeypatch, [5.0])
    train(run_cfg)
    assert json.loads(Path(run_cfg.OUTPUT_DIR, "model_best.json").read_text())["value"] == 15.0
    assert_same(load(run_cfg, "model_best.pth"), load(run_cfg, "model_final_ema.pth"))


@pytest.mark.parametrize("when", ["middle", "end"])
def test_a_signal_in_an_evaluation_does_not_wait_for_its_end(run_cfg, monkeypatch, when):
    run_cfg.DATASETS.TEST, run_cfg.SOLVER.MAX_ITER = ("penn_fudan_val",), 4
    run_cfg.TEST.EVAL_PERIOD = 2 if when == "middle" else 0
    run_cfg.MODEL.GAN.EMA.DECAY = 0.5

    def test(cls, cfg, model, evaluators=None):
        if cfg.OUTPUT_DIR.endswith("ema"):
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker is killed by signal: Terminated")
        return {"segm": {"AP": 1.0}}

    monkeypatch.setattr(AdversarialTrainer, "test", classmethod(test))
    before = signal.getsignal(signal.SIGTERM)
    trainer = AdversarialTrainer(run_cfg)
    weights = trainer.model.state_dict()
    with pytest.raises(TrainingInterrupted) as stopped:
        trainer.train()
    name = "model_0000001.pth" if when == "middle" else "model_final.pth"
    assert name in str(stopped.value) and signal.getsignal(signal.SIGTERM) is before
    # the live weights, although the evaluation had put the average in their place
    assert_same(dict(load(run_cfg, name)["model"]), dict(weights))
    assert (Path(run_cfg.OUTPUT_DIR) / "model_final_ema.pth").exists() == (when == "end")


def test_a_run_that_fails_in_its_last_iteration_is_not_evaluated(run_cfg, monkeypatch):
    run_cfg.DATASETS.TEST = ("penn_fudan_val",)
    scripted(monkeypatch, [])
    trainer = AdversarialTrainer(run_cfg)
    original = trainer._trainer.run_step

    def step():
        if trainer.iter == run_cfg.SOLVER.MAX_ITER - 1:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        original()

    trainer._trainer.run_step = step
    # Detectron2's proposals raise this before there is a loss; scripted() would fail if anything were evaluated
    with pytest.raises(
        UserError, match="iteration 2: Predicted boxes or scores contain Inf/NaN. Training has diverged"
    ):
        trainer.train()


def test_a_finished_run_is_left_as_it_is(run_cfg, caplog):
    train(run_cfg)
    before = Path(run_cfg.OUTPUT_DIR, "metrics.json").read_text()
    with caplog.at_level("INFO", logger="gan_plugin"):
        train(run_cfg, resume=True)
    assert "nothing left to train" in caplog.text
    assert Path(run_cfg.OUTPUT_DIR, "metrics.json").read_text() == before


@pytest.mark.parametrize("optimizer, expected", [("sgd", 0.25e-3), ("adamw", 1e-3)])
def test_joint_mode_logs_the_discriminators_real_rate(run_cfg, optimizer, expected):
    run_cfg.MODEL.GAN.DISC_LR_FACTOR, run_cfg.SOLVER.BASE_LR, run_cfg.SOLVER.OPTIMIZER = 0.25, 1e-3, optimizer
    train(run_cfg)
    line = json.loads(Path(run_cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()[-1])
    assert (line["lr"], line["lr_disc"]) == pytest.approx((1e-3, expected))


@pytest.mark.parametrize("mode", ["joint", "alternating"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_idle_discriminator_is_not_moved(run_cfg, mode, optimizer):
    """Not by weight decay, not by momentum, and Adam counts no step."""
    run_cfg.MODEL.GAN.MODE, run_cfg.SOLVER.OPTIMIZER, run_cfg.MODEL.GAN.START_ITER = mode, optimizer, 1000
    trainer = AdversarialTrainer(run_cfg)
    before = [p.detach().clone() for p in discriminator_parameters(trainer.model)]
    trainer.train()
    after = discriminator_parameters(trainer.model)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    optimizers = [trainer.optimizer, getattr(trainer._trainer, "disc_optimizer", trainer.optimizer)]
    assert not any(p in o.state for o in optimizers for p in after)


def test_a_projects_own_loader_trains_and_is_told_about_resume(run_cfg, caplog):
    class Project(AdversarialTrainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return build_detection_train_loader(cfg)

    trainer = Project(run_cfg)
    assert "--resume will start its data anew" in caplog.text
    trainer.train()
    assert train(run_cfg, resume=True).start_iter == 3


@pytest.mark.parametrize(
    "key, value, sentence",
    [
        ("MODEL.GAN.LABELS.REAL", (1.2, 0.7), "the lower one first"),
        ("MODEL.GAN.LABELS.FLIP_PROB", 5.0, "probability"),
        ("MODEL.GAN.MASK.CHANNELS", (16, 24, 64, 64), "multiples of 32"),
        ("MODEL.GAN.MASK.CHANNELS", (), "one or more"),
        ("MODEL.GAN.MASK.CHANNELS", (16, "a", 64, 64), "whole numbers"),
        ("MODEL.GAN.MASK.INSTANCE_NOISE", -1.0, "0 or more"),
        ("MODEL.GAN.START_ITER", -1, "0 or more"),
        ("MODEL.DEVICE", "gpu", "cuda or cpu"),
        ("MODEL.META_ARCHITECTURE", "Nope", "registered ones are AdversarialRCNN"),
        ("MODEL.ROI_MASK_HEAD.NAME", "Nope", "registered ones are AdversarialMaskHead"),
        ("SOLVER.MAX_ITER", 0, "1 or more"),
        ("SOLVER.STEPS", (3,), "before the end"),
        ("SOLVER.DISC.BASE_LR", -1.0, "0 or more"),
        ("SOLVER.DISC.BETAS", (0.5,), "two numbers"),
        ("DATASETS.SUBSETS.SIZES", (3, 3), "three numbers"),
        ("MODEL.GAN.EMA.DECAY", 1.5, "below 1"),
        ("TEST.PRECISE_BN.ENABLED", True, "does not go together"),
    ],
)
def test_values_that_make_no_sense_are_sentences(run_cfg, key, value, sentence):
    run_cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{key}.*{sentence}"):
        AdversarialTrainer(run_cfg)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_to_resume_from(run_cfg, number, code):
    run_cfg.SOLVER.MAX_ITER = 50
    before = signal.getsignal(number)
    trainer = AdversarialTrainer(run_cfg)
    original = trainer._trainer.run_step

    def step():
        original()
        if trainer.iter == 1:
            os.kill(os.getpid(), number)

    trainer._trainer.run_step = step
    with pytest.raises(TrainingInterrupted, match="after iteration 1; saved .*model_0000001.pth") as stopped:
        trainer.train()
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before
    assert load(run_cfg, "model_0000001.pth")["iteration"] == 1
    run_cfg.SOLVER.MAX_ITER = 3
    assert train(run_cfg, resume=True).start_iter == 2


def test_nan_stops_with_the_last_good_checkpoint(run_cfg):
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD = 50, 2
    trainer = AdversarialTrainer(run_cfg)
    original = trainer._trainer.run_step

    def step():
        if trainer.iter == 3:
            trainer.model.mask_adversary.weight = float("inf")
        original()

    trainer._trainer.run_step = step
    with pytest.raises(UserError, match="iteration 3: loss_adv_mask is inf"):
        trainer.train()
    out = Path(run_cfg.OUTPUT_DIR)
    assert (out / "last_checkpoint").read_text() == "model_0000001.pth"
    assert all(torch.isfinite(v).all() for v in load(run_cfg, "model_0000001.pth")["model"].values())


class TestSafeCheckpointer:
    def make(self, tiny_cfg, folder):
        model = build_model(tiny_cfg)
        return model, SafeCheckpointer(model, str(folder))

    def test_weights_that_are_not_finite_are_not_saved(self, tiny_cfg, tmp_path):
        model, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("good")
        torch.nn.init.constant_(model.roi_heads.mask_head.predictor.bias, float("nan"))
        with pytest.raises(UserError, match="bad.pth was not written because roi_heads.mask_head.predictor.bias"):
            checkpointer.save("bad")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["good.pth", "last_checkpoint"]

    def test_a_full_disk_leaves_the_last_checkpoint_alone(self, tiny_cfg, tmp_path, monkeypatch):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("model_0000001")
        before = (tmp_path / "model_0000001.pth").read_bytes()

        def full(data, file):
            file.write(b"half of it")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(UserError, match="No space left on device.*free some disk space"):
            checkpointer.save("model_0000001")
        assert (tmp_path / "model_0000001.pth").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]

    def test_the_best_is_not_what_a_run_resumes_from(self, tiny_cfg, tmp_path):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("model_0000001")
        checkpointer.save("model_best")
        assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"

    @pytest.mark.parametrize(
        "content",
        [b"", b"no checkpoint", b"eh?\n" * 99, b"PK\x03\x04 cut short", "list", "other", "foreign", "missing"],
    )
    def test_what_is_no_checkpoint_is_named(self, tiny_cfg, tmp_path, content):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        path = tmp_path / "weights.pth"
        if content == "list":
            torch.save([1, 2], path)
        elif content == "other":
            torch.save({"model": {}}, path)
        elif content == "foreign":
            torch.save({"model": {"foo": torch.zeros(1)}}, path)
        elif content != "missing":
            path.write_bytes(content)
        with pytest.raises(UserError, match=str(path)):
            checkpointer.load(str(path))

    def test_pickled_code_is_not_run(self, tiny_cfg, tmp_path):
        _, checkpointer = self.make(tiny_cfg, tmp_path)

        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "trapped"),)

        torch.save({"model": Trap()}, tmp_path / "trap.pth")
        with pytest.raises(UserError, match="trap.pth"):
            checkpointer.load(str(tmp_path / "trap.pth"))
        assert not (tmp_path / "trapped").exists()
