"""The queue of runs, with a stand-in for tools/train_net.py that costs no time."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from forked_runs import Fork

from gan_plugin.comparison.plan import Plan, Split
from gan_plugin.comparison.run import State, arguments_of, execute, settle, state_of
from gan_plugin.errors import run_command_line
from gan_plugin.metrics import final_scores, iterations_done
from gan_plugin.processes import taken

# notes when it ran, and does to its folder what a run does; told by a file to fail, to hang, or to wait for another one
STAND_IN = """
import ast, json, os, pathlib, sys, time
words = sys.argv[1:]
options = {key: ast.literal_eval(value) for key, value in zip(words, words[1:]) if "." in key or key.isupper()
           if value[0] in "'[{(" or value[0].isdigit() or value in ("True", "False")}
folder = pathlib.Path(options["OUTPUT_DIR"])
root = folder.parents[1]
name = f"{folder.parent.name}/{folder.name}"
(folder / "arguments.json").write_text(json.dumps(words))
start = time.monotonic()
if (root / "hang").exists():
    (folder / "hanging").touch()
    time.sleep(60)
if name in (root / "fail").read_text().split():
    print("error: This one was told to fail.")
    sys.exit(2)
if options.get("MODEL.WEIGHTS"):
    assert pathlib.Path(options["MODEL.WEIGHTS"]).is_file(), "started before the weights were there"
(root / f"begun-{name.replace('/', '-')}").touch()
while (root / "meet").exists() and len(list(root.glob("begun-*"))) < 2 and time.monotonic() < start + 60:
    time.sleep(0.01)
time.sleep(0.1)
with open(folder / "metrics.json", "a") as file:
    for line in ({"iteration": 3, "total_loss": 1.0}, {"iteration": 4, "segm/AP": 20.0 + options["SEED"]}):
        file.write(json.dumps(line) + "\\n")
for weights in ("model_final.pth", "model_0000001.pth"):
    (folder / weights).touch()
with open(root / "times", "a") as file:
    file.write(f"{name} {start} {time.monotonic()}\\n")
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.setattr("gan_plugin.comparison.run._POLL_SECONDS", 0.05)
    (tmp_path / "fail").touch()
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return path


def plan(seeds=(0,), arms=("baseline", "bce")):
    split = Split(["a", "b", "eval"], [1, 1, 1], [1, 1, 1])
    return Plan("x.yaml", "", split, 4, 4, {}, {}, {arm: {} for arm in arms}, list(seeds))


def spans(folder):
    lines = [line.split() for line in (folder / "times").read_text().splitlines()]
    return {name: (float(start), float(end)) for name, start, end in lines}


def most_at_once(times):
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)


@pytest.mark.parametrize("jobs", [1, 2])
def test_so_many_at_a_time_and_each_after_its_model_a(tool, tmp_path, jobs):
    if jobs > 1:
        # on a busy machine the first one would be done before the second one has started
        (tmp_path / "meet").touch()
    assert execute(plan(seeds=(0, 1)), tmp_path, tool, jobs=jobs) == {}
    times = spans(tmp_path)
    assert len(times) == 6 and most_at_once(times.values()) == jobs
    for name in times.keys() - {"seed0/a", "seed1/a"}:
        assert times[name][0] > times[f"{name[:5]}/a"][1]
    assert not list(tmp_path.rglob("model_0000001.pth"))


def test_a_failed_run_stops_only_those_that_start_from_it(tool, tmp_path):
    (tmp_path / "fail").write_text("seed0/a seed1/bce")
    failures = execute(plan(seeds=(0, 1)), tmp_path, tool, jobs=2)
    assert failures == {
        "seed0/a": "This one was told to fail.",
        "seed0/baseline": "It was not started, because seed0/a failed.",
        "seed0/bce": "It was not started, because seed0/a failed.",
        "seed1/bce": "This one was told to fail.",
    }
    assert spans(tmp_path).keys() == {"seed1/a", "seed1/baseline"}
    (tmp_path / "fail").write_text("")
    before = spans(tmp_path)
    assert execute(plan(seeds=(0, 1)), tmp_path, tool, jobs=2) == {}
    assert len(spans(tmp_path)) == 6 and before.items() <= spans(tmp_path).items()


def test_two_calls_share_the_runs_of_a_folder(tool, tmp_path):
    """Each run is done once, by whoever had it first; both calls end when all are done."""
    (tmp_path / "meet").touch()
    work = plan(seeds=(0, 1), arms=("baseline", "bce", "lsgan"))
    calls = [
        Fork(lambda: bool(execute(work, tmp_path, tool, jobs=1)), tmp_path / f"console{number}") for number in range(2)
    ]
    assert [call.wait(60) for call in calls] == [0, 0]
    lines = (tmp_path / "times").read_text().splitlines()
    assert len(lines) == len(spans(tmp_path)) == 8 and most_at_once(spans(tmp_path).values()) == 2


def test_a_run_that_outlives_its_call_is_waited_for(tool, tmp_path):
    """Its process still has the lock; what it has done by its end is not done again."""

    def outlive():
        with taken(tmp_path / ".locks/seed0/a"):
            (tmp_path / "at work").touch()
            while not (tmp_path / "end").exists():
                time.sleep(0.01)

    survivor = Fork(outlive, tmp_path / "survivor")
    while not (tmp_path / "at work").exists():
        time.sleep(0.01)
    call = Fork(lambda: bool(execute(plan(), tmp_path, tool, jobs=2)), tmp_path / "console")
    time.sleep(0.5)
    assert call.poll() is None and not (tmp_path / "times").exists()
    write_metrics(tmp_path / "seed0/a", {"iteration": 3, "total_loss": 1.0}, {"iteration": 4, "segm/AP": 20.0})
    (tmp_path / "seed0/a/model_final.pth").touch()
    (tmp_path / "end").touch()
    assert (survivor.wait(60), call.wait(60)) == (0, 0)
    assert spans(tmp_path).keys() == {"seed0/baseline", "seed0/bce"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_runs_end_with_the_command_that_started_them(tool, tmp_path, number):
    if number == signal.SIGKILL and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells a process that its parent was killed")
    (tmp_path / "hang").touch()
    console = tmp_path / "console.txt"
    process = Fork(lambda: run_command_line(lambda: execute(plan(), tmp_path, tool, jobs=1) and 0), console)
    hanging, deadline = tmp_path / "seed0/a/hanging", time.monotonic() + 60
    while not hanging.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    child = int(children.read_text().split()[0])
    process.send_signal(number)
    process.wait(30)
    assert number == signal.SIGKILL or f"Stopped by {number.name}; the same command continues." in console.read_text()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def write_metrics(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text("\n".join(json.dumps(line) for line in lines))


def test_what_is_left_of_a_run(tmp_path):
    first, _, arm = plan().runs()
    folder = tmp_path / arm.name
    assert state_of(folder, 4) is State.TRAIN
    assert arguments_of(arm, tmp_path)[:2] == ["--config-file", str(tmp_path / "config.yaml")]
    assert "--resume" not in arguments_of(arm, tmp_path)
    assert arguments_of(arm, tmp_path)[-1] == repr(str(tmp_path / first.name / "model_final.pth"))
    write_metrics(folder, {"iteration": 3, "total_loss": 1.0, "gan/mask/d_real": 0.5})
    assert "--resume" in arguments_of(arm, tmp_path) and iterations_done(folder) == 4
    (folder / "model_final.pth").touch()
    assert state_of(folder, 4) is State.EVALUATE
    assert "--resume" in arguments_of(arm, tmp_path)


@pytest.mark.parametrize("iteration", [3, 4])
def test_the_final_scores_are_those_of_the_last_evaluation_and_no_scalars_of_training(tmp_path, iteration):
    training = {"iteration": 3, "total_loss": 1.0, "rpn/num_pos_anchors": 5.0}
    write_metrics(tmp_path, {"iteration": 2, "segm/AP": 9.0}, training, {"iteration": iteration, "segm/AP": 1.0})
    assert final_scores(tmp_path, 4) == {"segm/AP": 1.0}
    assert state_of(tmp_path, 4) is State.FINISHED and state_of(tmp_path, 6) is State.TRAIN


def test_a_line_cut_off_is_no_evaluation(tmp_path):
    write_metrics(tmp_path, {"iteration": 4, "segm/AP": 1.0})
    file = tmp_path / "metrics.json"
    file.write_text(file.read_text()[:-2])
    assert final_scores(tmp_path, 4) == {} and state_of(tmp_path, 4) is State.TRAIN


def test_an_evaluation_without_any_number_is_not_repeated_for_ever(tmp_path):
    write_metrics(tmp_path, {"iteration": 3, "total_loss": 1.0})
    settle(tmp_path, 4)
    assert state_of(tmp_path, 4) is State.FINISHED and final_scores(tmp_path, 4) == {}
