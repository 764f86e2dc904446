"""Whatever does not fit on the disk ends the run with a sentence, and the checkpoints before it stay."""

import pytest
import torch

EVALUATED = {"DATASETS.TEST": ("penn_fudan_val",), "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
FIRST = ["model_0000001.pth"]
ALL = [*FIRST, "model_0000003.pth", "model_final.pth"]


def checkpoints(out):
    for path in out.glob("*.pth"):
        assert torch.load(path, weights_only=True)["model"]
    names = sorted(path.name for path in out.glob("*.pth"))
    assert not names or (out / "last_checkpoint").read_text() == names[-1]
    return names


@pytest.mark.parametrize(
    "file, kept, sentence",
    [
        (r"model_0000003\.pth", FIRST, r"model_0000003.pth could not be written ([Errno 28] No space left on device)"),
        (r"metrics\.json", ALL, "The disk is full"),
        # what fails first is said, not what that leads to
        (r"model_0000003\.pth|metrics\.json", FIRST, r"model_0000003.pth could not be written"),
        (r"tfevents", ALL, "The disk is full"),
        (r"iter_0000003\.png", ALL, r"iter_0000003.png could not be written ([Errno 28] No space left on device)"),
        (r"penn_fudan_val_coco_format\.json", ALL, "The disk is full"),
        (r"instances_predictions\.pth", ALL, "The disk is full"),
        (r"coco_instances_results\.json", ALL, "The disk is full"),
    ],
)
def test_a_full_disk_in_training(tool, tmp_path, file, kept, sentence):
    out = tmp_path / "run"
    ended = tool(out, options={"MODEL.GAN.VIS_PERIOD": 2, **EVALUATED}, disk_full_for={"path": file})
    assert sentence in ended.error
    assert checkpoints(out) == kept
    assert ended.error in (out / "log.txt").read_text()
    assert not list(out.rglob("*.part"))


def test_the_run_goes_on_once_there_is_space(tool, tmp_path):
    out = tmp_path / "run"
    tool(out, options=EVALUATED, disk_full_for={"path": r"last_checkpoint"})
    assert [path.name for path in out.glob("*.pth")] == FIRST
    assert tool(out, "--resume", options=EVALUATED).code == 0
    assert checkpoints(out) == ALL
    # and the first evaluation that fits is not the training's
    weights = {**EVALUATED, "MODEL.WEIGHTS": out / "model_final.pth"}
    again = tool(out, "--eval-only", options=weights, disk_full_for={"path": r"metrics\.json"})
    assert "The disk is full" in again.error


def test_what_a_failure_leads_to_is_not_what_is_said(tool, tmp_path):
    """In the first iterations Detectron2's console writer divides by zero when it is asked twice."""
    ended = tool(tmp_path / "run", options={"SOLVER.MAX_ITER": 1}, disk_full_for={"path": r"metrics\.json"})
    assert "The disk is full" in ended.error


def test_a_log_that_cannot_be_written_stops_nothing(tool, tmp_path):
    ended = tool(tmp_path / "run", disk_full_for={"path": r"log\.txt"})
    assert ended.code == 0 and checkpoints(tmp_path / "run") == ALL
    assert "iter: 3 " in ended.console and "Traceback" not in ended.console


def test_a_file_size_limit(tool, tmp_path):
    """torch.save says of it "unexpected pos 274368 vs 274264"."""
    ended = tool(tmp_path / "run", size_limit={"size": 300_000})
    assert "model_0000001.pth could not be written ([Errno 27] File too large)" in ended.error
    assert not list((tmp_path / "run").glob("*.pth*"))
