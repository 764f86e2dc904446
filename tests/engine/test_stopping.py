"""How a run ends before its time: a signal, a loss that is not finite."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from support import assert_same, load, scripted, train

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.engine.distributed import TrainingInterrupted, forking_workers
from gan_plugin.metrics import read_metrics


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


def test_a_final_evaluation_that_was_killed_is_made_up_for_with_the_average(run_cfg, monkeypatch):
    run_cfg.DATASETS.TEST, run_cfg.MODEL.GAN.EMA.DECAY = ("penn_fudan_val",), 0.5
    file = Path(run_cfg.OUTPUT_DIR) / "metrics.json"
    scripted(monkeypatch, [7.0])
    trained = train(run_cfg)
    lines = file.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1]) == {"segm/AP": 7.0, "ema/segm/AP": 17.0, "iteration": 3}
    # what a kill in the midst of it leaves
    file.write_text("".join(lines[:-1]))
    seen = []

    def test(cls, cfg, model, evaluators=None):
        seen.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return {"segm": {"AP": float(len(seen))}}

    monkeypatch.setattr(AdversarialTrainer, "test", classmethod(test))
    train(run_cfg, resume=True)
    assert json.loads(file.read_text().splitlines()[-1]) == {"segm/AP": 1.0, "ema/segm/AP": 2.0, "iteration": 2}
    average = dict(trained._ema.generator_state())
    assert_same(seen[0], dict(trained.model.state_dict()))
    assert_same({name: seen[1][name] for name in average}, average)
    train(run_cfg, resume=True)
    assert len(seen) == 2


def test_a_score_that_a_kill_has_cost_between_checkpoint_and_evaluation_is_made_up_for(run_cfg, monkeypatch):
    """The weights of the checkpoint are judged before they move on, and are the best ones if they are."""
    run_cfg.DATASETS.TEST, run_cfg.SOLVER.MAX_ITER, run_cfg.TEST.EVAL_PERIOD = ("penn_fudan_val",), 4, 2
    run_cfg.TEST.BEST_METRIC = "segm/AP"

    def test(cls, cfg, model, evaluators=None):
        if stop:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker is killed by signal: Terminated")
        judged.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return {"segm": {"AP": 9.0 - len(judged)}}

    monkeypatch.setattr(AdversarialTrainer, "test", classmethod(test))
    stop, judged = True, []
    with pytest.raises(TrainingInterrupted, match="model_0000001.pth"):
        train(run_cfg)
    stop, out = False, Path(run_cfg.OUTPUT_DIR)
    train(run_cfg, resume=True)
    saved = dict(load(run_cfg, "model_0000001.pth")["model"])
    assert_same(judged[0], saved)
    scores = {line["iteration"]: line["segm/AP"] for line in read_metrics(out / "metrics.json") if "segm/AP" in line}
    assert list(scores.values()) == [8.0, 7.0] and min(scores) == 1
    assert json.loads((out / "model_best.json").read_text())["iteration"] == 1
    best = load(run_cfg, "model_best.pth")
    assert_same(dict(best["model"]), saved)
    assert best["iteration"] == 1
    # nothing is judged twice
    (out / "last_checkpoint").write_text("model_0000001.pth")
    train(run_cfg, resume=True)
    assert len(judged) == 3


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


def test_the_handler_of_signals_does_not_keep_a_pools_worker_alive(run_cfg):
    """multiprocessing.Pool ends its workers by SIGTERM and waits for them for ever."""
    stop = AdversarialTrainer(run_cfg)._stop
    stop.before_train()
    try:
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        # Python forgets a signal that comes while it starts the child.
        time.sleep(0.5)
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == -signal.SIGTERM
        with forking_workers():
            loader = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1.5,))
            loader.start()
        time.sleep(0.5)
        loader.terminate()
        loader.join(20)
        assert loader.exitcode == 0
    finally:
        stop.restore()
        worker.kill()


def test_nan_stops_with_the_last_good_checkpoint(run_cfg):
    run_cfg.SOLVER.MAX_ITER, run_cfg.SOLVER.CHECKPOINT_PERIOD = 50, 2
    trainer = AdversarialTrainer(run_cfg)
    original = trainer._trainer.run_step

    def step():
        if trainer.iter == 3:
            trainer.model.adversaries["mask"].weight = float("inf")
        original()

    trainer._trainer.run_step = step
    with pytest.raises(UserError, match="iteration 3: loss_adv_mask is inf"):
        trainer.train()
    out = Path(run_cfg.OUTPUT_DIR)
    assert (out / "last_checkpoint").read_text() == "model_0000001.pth"
    assert all(torch.isfinite(v).all() for v in load(run_cfg, "model_0000001.pth")["model"].values())
