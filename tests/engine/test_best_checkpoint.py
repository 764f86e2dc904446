"""The best evaluation is kept, also across a resume."""

import json
from pathlib import Path

from support import assert_same, load, scripted, train


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
