"""A process that is gone from one instruction to the next: what it leaves is whole, and --resume loses nothing."""

import random
import signal

import pytest
import torch
from support import assert_same

CHECKPOINT_BYTES = 5_000_000
FORWARD_PASSES = 850  # of modules, in the run's four iterations; there are a few more
# seeded, so that a failure comes again
DRAW = random.Random(14)
POINTS = {
    "early in an iteration": {"killed_in_forward": {"call": DRAW.randrange(1, FORWARD_PASSES // 3)}},
    "in a checkpoint": {"killed_when_a_file_reaches": {"size": DRAW.randrange(200_000, CHECKPOINT_BYTES // 2)}},
    "late in a checkpoint": {"killed_when_a_file_reaches": {"size": DRAW.randrange(4_500_000, CHECKPOINT_BYTES)}},
    "before the second checkpoint has its name": {"killed_before": {"event": "os.rename", "path": r"0003\.pth$"}},
    "between the first checkpoint and its tag": {"killed_before": {"event": "open", "path": "last_checkpoint"}},
    "late in an iteration": {"killed_in_forward": {"call": DRAW.randrange(FORWARD_PASSES * 3 // 4, FORWARD_PASSES)}},
    "before the last checkpoint has its name": {"killed_before": {"event": "os.rename", "path": r"model_final\.pth$"}},
    "between the last checkpoint and its tag": {
        "killed_before": {"event": "os.rename", "path": "last_checkpoint$", "time": 3}
    },
    "between the last weights and their average": {"killed_before": {"event": "open", "path": "model_final_ema"}},
}
OPTIONS = {"MODEL.GAN.EMA.DECAY": 0.9, "MODEL.GAN.VIS_PERIOD": 2}


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def unbroken(server, tmp_path_factory):
    return tmp_path_factory.mktemp("unbroken") / "run"


def assert_whole(out):
    checkpoints = sorted(out.glob("*.pth"))
    for path in checkpoints:
        assert load(path)["model"], path
    if (out / "last_checkpoint").exists():
        assert out / (out / "last_checkpoint").read_text() in checkpoints


def assert_equals_the_unbroken(out, unbroken, tool):
    if not unbroken.exists():
        assert tool(unbroken, options=OPTIONS).code == 0
    for name in ("model_final.pth", "model_final_ema.pth"):
        assert_same(load(out / name), load(unbroken / name))
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("point", POINTS)
def test_killed_once(tool, tmp_path, unbroken, point):
    out = tmp_path / "run"
    died = tool(out, options=OPTIONS, **POINTS[point])
    assert died.code in (-signal.SIGKILL, -signal.SIGXFSZ), died.console[-2000:]
    assert_whole(out)
    # another period, so that no later file takes the place of one that was left unfinished
    resumed = tool(out, "--resume", options={**OPTIONS, "SOLVER.CHECKPOINT_PERIOD": 3})
    assert resumed.code == 0, resumed.console[-2000:]
    assert_equals_the_unbroken(out, unbroken, tool)


def test_killed_with_nothing_but_a_best_checkpoint(tool, tmp_path, unbroken):
    """An evaluation may come before the first checkpoint; what it leaves is not where a run resumes."""
    out = tmp_path / "run"
    evaluated = {"DATASETS.TEST": ("penn_fudan_val",), "TEST.EVAL_PERIOD": 1, "TEST.BEST_METRIC": "bbox/AP50"}
    options = {**OPTIONS, **evaluated, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
    assert tool(out, options=options, killed_before={"event": "open", "path": r"0001\.pth"}).code == -signal.SIGKILL
    assert [path.name for path in out.glob("*.pth")] == ["model_best.pth"] and not (out / "last_checkpoint").exists()
    assert "add --resume" in tool(out, options=OPTIONS).error
    assert tool(out, "--resume", options=OPTIONS).code == 0
    assert_equals_the_unbroken(out, unbroken, tool)
