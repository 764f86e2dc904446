"""The trainer as its user sees it: exact resume, what it writes, how it ends."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.engine.checkpoint import SafeCheckpointer
from gan_plugin.engine.hooks import TrainingInterrupted


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
    cfg.TEST.BEST_METRIC = "segm/AP"
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
    assert (out / "inference/coco_instances_results.json").exists() and (out / "inference_ema").is_dir()
    assert (out / "last_checkpoint").read_text() == "model_final.pth"
    if "segm/AP" in metrics:
        record = json.loads((out / "model_best.json").read_text())
        assert record["value"] >= metrics["segm/AP"] and (out / "model_best.pth").exists()


def test_plain_run_has_no_second_player(run_cfg):
    run_cfg.MODEL.GAN.ENABLED = False
    run_cfg.MODEL.GAN.MODE = "alternating"
    train(run_cfg)
    state = load(run_cfg)
    assert not [name for name in state["model"] if "adversary" in name]
    assert "disc_optimizer" not in state["trainer"]["_trainer"]


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
        with pytest.raises(UserError, match="No space left on device.*Free some disk space"):
            checkpointer.save("model_0000001")
        assert (tmp_path / "model_0000001.pth").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]

    def test_the_best_is_not_what_a_run_resumes_from(self, tiny_cfg, tmp_path):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        checkpointer.save("model_0000001")
        checkpointer.save("model_best")
        assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"

    @pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short", "list", "other", "missing"])
    def test_what_is_no_checkpoint_is_named(self, tiny_cfg, tmp_path, content):
        _, checkpointer = self.make(tiny_cfg, tmp_path)
        path = tmp_path / "weights.pth"
        if content == "list":
            torch.save([1, 2], path)
        elif content == "other":
            torch.save({"model": {}}, path)
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
