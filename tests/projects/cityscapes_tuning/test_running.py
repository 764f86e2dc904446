"""Studies that run: killed and resumed, shared by workers, with trials that diverge or run out of memory."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from cityscapes_tuning.search import storage as storage_module
from cityscapes_tuning.search import worker as worker_module
from cityscapes_tuning.search.status import trial_table
from cityscapes_tuning.search.worker import Worker
from cityscapes_tuning.search.workspace import open_study, retry_failed, set_up

from gan_plugin.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
SEARCH = {
    "fine": {
        "epochs": 3,
        "eta": 3,
        "arms": {"sgd": {"space": {"lr": [0.001, 0.01], "momentum": [0.8, 0.9], "weight_decay": [1e-4, 1e-2]}}},
    }
}
COARSE = {
    "coarse": {"epochs": 1, "lr": [1000.0, 0.001], "factors": {"optimizer": {"sgd": {"SOLVER.OPTIMIZER": "sgd"}}}}
}


def as_text(table):
    return json.dumps(trial_table(table), indent=1)


def weights(context, name, file="model_final.pth"):
    return torch.load(context.trial_folder(name) / file, weights_only=True)["model"]


def test_a_diverged_trial_is_marked_and_the_study_goes_on(study_file, work, tmp_path):
    _, table, findings = work(study_file(COARSE), tmp_path / "out")
    rows = {row.trial.params["lr"]: row for row in table.rows("coarse").values()}
    assert rows[1000.0].status == "diverged" and rows[1000.0].is_failed and rows[1000.0].value is None
    assert rows[1000.0].attr("reason").startswith("Training stopped at iteration ")
    assert rows[0.001].status == "complete" and rows[0.001].value > 0
    assert findings.finished and findings.choice.lr == 0.001


def test_a_promoted_trial_is_what_unbroken_training_gives(study_file, work, tmp_path):
    context, table, findings = work(study_file(SEARCH, epoch_iterations=1), tmp_path / "out")
    rows = table.rows("fine-sgd")
    # R = 3, eta = 3: brackets 3@1 1@3, 2@3
    assert sorted((row.key[:2], row.done, row.status) for row in rows.values()) == [
        ("s0", 3, "complete"), ("s0", 3, "complete"), ("s1", 1, "pruned"), ("s1", 1, "pruned"), ("s1", 3, "complete"),
    ]  # fmt: skip
    best = findings.winner
    assert best.value == min(row.value for row in rows.values() if row.status == "complete")
    (promoted,) = (row for key, row in rows.items() if key.startswith("s1") and row.done == 3)
    history = [entry["total"] for entry in promoted.attr("history")]
    assert len(history) == 3 and set(promoted.trial.intermediate_values) == {1, 2, 3}
    # the same setting from the start in one go: the same losses, bit for bit
    direct = {"full": {"epochs": 3, "patience": 0, "best_from": "none", "variants": {"V1": {}}}}
    file = study_file(direct, name="direct", settings=promoted.trial.params, epoch_iterations=1)
    _, other, _ = work(file, tmp_path / "direct")
    assert [entry["total"] for entry in other.rows("full")["V1"].attr("history")] == history


def command(folder):
    return [sys.executable, str(ROOT / "projects/CityscapesTuning/study.py"), "work", str(folder)]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(toy, forked, write_study, tmp_path_factory):
    """SEARCH by one worker: (context, table)."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(toy))
        context, table = set_up(write_study(folder, SEARCH, epoch_iterations=2), folder / "alone")
        Worker(context, table, process=forked, say=lambda text: None).work()
    return context, table


@pytest.mark.parametrize("url", ["", "sqlite:///study.db", "postgresql"])
def test_two_workers_of_which_one_is_killed_give_the_table_of_one(
    study_file, undisturbed, toy_root, forked, tmp_path, monkeypatch, request, url
):
    url = request.getfixturevalue(url) if url == "postgresql" else url
    monkeypatch.setattr(storage_module, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage_module, "SILENCE_SECONDS", 4)
    monkeypatch.setattr(worker_module, "_POLL_SECONDS", 0.05)
    context, table = set_up(study_file(SEARCH, epoch_iterations=2, storage=url), tmp_path / "shared")
    # the other worker is a process group of its own that is killed in the midst of a trial, children included
    other = os.fork()
    if not other:
        os.setpgrp()
        try:
            own, own_table = open_study(tmp_path / "shared")
            Worker(own, own_table, process=forked, say=lambda text: None).work()
        finally:
            os._exit(0)
    wait_for(lambda: list((tmp_path / "shared/trials").rglob("validation.json")))
    os.killpg(other, signal.SIGKILL)
    os.waitpid(other, 0)
    interrupted = [row for row in table.all_rows().values() if row.status in ("running", "promoted")]
    assert any(row.trial.state.name == "RUNNING" for row in interrupted)
    findings = Worker(context, table, process=forked, say=lambda text: None).work()
    assert findings.finished
    alone_context, alone = undisturbed
    assert as_text(table) == as_text(alone)
    for row in alone.all_rows().values():
        if (context.trial_folder(row.name) / "model_final.pth").is_file():
            a, b = weights(context, row.name), weights(alone_context, row.name)
            assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_out_of_memory_is_tried_again_smaller(study_file, work, monkeypatch, tmp_path):
    from cityscapes_tuning.training import trainer

    # There is no memory for images of more than 80 pixels, nor for two at a time.
    original = trainer.TuningTrainer.run_step

    def run_step(self):
        if self.cfg.INPUT.MIN_SIZE_TRAIN[0] > 80 or self.cfg.SOLVER.IMS_PER_BATCH > 1:
            torch.empty(1 << 60)
        original(self)

    monkeypatch.setattr(trainer.TuningTrainer, "run_step", run_step)
    phase = {"coarse": {"epochs": 1, "lr": [0.001]}}
    _, table, findings = work(study_file(phase, settings={"INPUT.MIN_SIZE_TRAIN": [100]}), tmp_path / "out")
    (row,) = table.rows("coarse").values()
    assert findings.finished and row.status == "complete"
    assert [event.split(". (")[0] for event in row.attr("events")] == [
        "Out of memory: batches of 1, 2 of them a step",
        "Out of memory: images of 75 pixels",
    ]
    used = yaml.safe_load((tmp_path / "out/trials/coarse/lr=0.001/config.yaml").read_text())
    assert used["SOLVER"]["IMS_PER_BATCH"] == 1 and used["SOLVER"]["ACCUMULATE"] == 2


def test_a_model_that_does_not_learn_stops_the_study(study_file, work, tmp_path):
    phases = {"babysit": {"epochs": 2, "fall": 0.99, "lr_range_iterations": 0}, **COARSE}
    with pytest.raises(UserError, match="It cannot be trained well enough: the loss .* 99% are asked for"):
        work(study_file(phases), tmp_path / "out")


def test_the_command_line_runs_a_study_with_two_processes(study_file, toy_root, tmp_path):
    file = study_file({"coarse": {"epochs": 1, "lr": [0.001, 0.0001]}})
    tool = command(tmp_path)[:2]
    run = [*tool, "run", str(file), "--output", str(tmp_path / "out"), "--workers", "2", "--phase", "coarse"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("complete") == 2
    with pytest.raises(UserError, match="another study"):
        set_up(study_file(COARSE, name="b"), tmp_path / "out")


def test_an_adversarial_trial_by_its_ap_in_a_database(study_file, work, tmp_path):
    file = study_file(
        {"coarse": {"epochs": 1, "lr": [0.001]}},
        settings={"MODEL.GAN.ENABLED": True, "MODEL.GAN.START_ITER": 0, "MODEL.GAN.VIS_PERIOD": 0},
        objective={"metric": "per_image/AP", "direction": "maximize"},
        storage=f"sqlite:///{tmp_path}/study.db",
    )
    context, table, findings = work(file, tmp_path / "out")
    (row,) = table.rows("coarse").values()
    assert findings.finished and row.value == row.attr("scores")["per_image/AP"] and (tmp_path / "study.db").is_file()
    metrics = (context.trial_folder(row.name) / "metrics.json").read_text()
    assert "loss_disc_mask" in metrics and "val_loss/total" in metrics


def test_optunas_own_search(study_file, work, tmp_path):
    arm = {"sgd": {"space": {"lr": [0.001, 0.01]}}}
    fine = {"method": "optuna", "trials": 2, "epochs": 1, "sampler": "tpe", "pruner": "halving", "arms": arm}
    _, table, findings = work(study_file({"fine": fine}, epoch_iterations=1), tmp_path / "out")
    rows = table.rows("fine-sgd")
    assert list(rows) == ["t0", "t1"] and findings.finished
    assert findings.winner.value == min(row.value for row in rows.values() if row.status == "complete")


def test_a_trial_that_takes_too_long_is_ended(study_file, work, tmp_path):
    phases = {"coarse": {"epochs": 50, "lr": [0.001]}}
    with pytest.raises(UserError, match="It took more than 0.0001 minutes"):
        work(study_file(phases, budget={"trial_minutes": 1e-4}), tmp_path / "out")
    # with more time, and asked to, it goes on from where it was
    context, table = set_up(study_file(phases, budget={"trial_minutes": 5}), tmp_path / "out")
    retry_failed(context, table)
    (row,) = table.rows("coarse").values()
    assert row.status == "waiting" and not row.attr("fresh") and row.attr("seconds") > 0


def test_a_budget_ends_within_a_trial_that_goes_on_later(study_file, work, monkeypatch, tmp_path):
    phases = {"coarse": {"epochs": 40, "lr": [0.001]}}
    monkeypatch.setattr(storage_module, "HEARTBEAT_SECONDS", 0.1)
    _, table, findings = work(study_file(phases, budget={"hours": 2 / 3600}), tmp_path / "out")
    (row,) = table.rows("coarse").values()
    assert not findings.finished and row.trial.state.name == "WAITING" and row.status == "waiting"
    assert row.attr("seconds") >= 2 and row.done == 0


def test_a_loss_that_explodes_is_a_divergence(study_file, work, monkeypatch, tmp_path):
    from cityscapes_tuning.training import validation

    monkeypatch.setattr(validation.ValidationLoss, "_losses", lambda self, done: {"loss_cls": 8e26})
    with pytest.raises(UserError, match=r"the validation loss has exploded, to 8e\+26"):
        work(study_file({"coarse": {"epochs": 1, "lr": [0.001]}}), tmp_path / "out")
    (row,) = open_study(tmp_path / "out")[1].rows("coarse").values()
    assert row.status == "diverged" and row.value is None


def test_a_limit_of_memory_gives_the_errors_that_are_caught():
    from cityscapes_tuning.training.model_parts import limit_memory
    from cityscapes_tuning.training.outcome import is_out_of_memory

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    used = int(status["VmData"].split()[0]) / (1 << 20)
    child = os.fork()
    if not child:
        code = 1
        try:
            torch.zeros(1 << 20)
            limit_memory(used + 0.25)
            torch.zeros(1 << 28)
        except Exception as error:
            code = 42 if is_out_of_memory(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
