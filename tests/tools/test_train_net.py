"""The command line: what a user types, and what bad input answers."""

import contextlib
import errno
import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.logger import setup_logger
from forked_runs import Fork
from PIL import Image

from gan_plugin.engine.checkpoint import trained_classes
from gan_plugin.errors import run_command_line

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools/train_net.py"
CONFIG = ROOT / "configs/quick_schedules/gan_mask_rcnn_penn_fudan_quick.yaml"
TINY = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.TIMM.PRETRAINED": "",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.GAN.START_ITER": 0,
    "MODEL.GAN.VIS_PERIOD": 0,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MIN_SIZE_TEST": 64,
    "SOLVER.STEPS": (),
    "SOLVER.MAX_ITER": 2,
}


@pytest.fixture
def train_net(pedestrians, monkeypatch):
    """(arguments) -> exit code, of the tool run in this process."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(pedestrians))
    spec = importlib.util.spec_from_file_location("train_net", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield lambda *arguments: run_command_line(lambda: module.main([str(argument) for argument in arguments]))
    # Detectron2 keeps the handlers of a run for the life of the process; these write to this test's captured stdout.
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "gan_plugin"):
        logging.getLogger(name).handlers.clear()


def arguments(out, *more, config=CONFIG):
    tiny = [part for option in TINY.items() for part in option]
    flags = [argument for argument in more if str(argument).startswith("--")]
    return ["--config-file", config, *flags, "OUTPUT_DIR", out, *tiny, *(a for a in more if a not in flags)]


def start(pedestrians, console, *more):
    """The tool in an interpreter and a process group of its own, whose errors go to the file `console`."""
    environment = {**os.environ, "DETECTRON2_DATASETS": str(pedestrians), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, TOOL, *map(str, more)]
    with open(console, "wb") as errors:
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True
        )


def assert_no_warnings(text):
    """Neither of Python's nor of PyTorch's logs; nor a traceback."""
    assert not re.search(r"Warning|^\[?W\d{4} |Traceback", text, re.MULTILINE), text


def stopped(process, run, console, number):
    """The exit code after a signal to the whole group of `process` once it trains; and the iteration that is saved."""
    deadline = time.monotonic() + 240
    while not (run / "samples").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        os.killpg(process.pid, number)
        code = process.wait(timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    (said,) = [line for line in console.read_text().splitlines() if line.startswith("Stopped by ")]
    assert said.startswith(f"Stopped by {number.name} after iteration") and said.endswith("Continue with --resume.")
    checkpoint = run / (run / "last_checkpoint").read_text()
    return code, torch.load(checkpoint, weights_only=True)["iteration"]


# workers that load data get the signal too
ENDLESS = ["SOLVER.MAX_ITER", 100_000, "DATALOADER.NUM_WORKERS", 1, "MODEL.GAN.VIS_PERIOD", 1]


def test_a_terminals_ctrl_c_leaves_a_checkpoint_and_the_run_goes_on(train_net, pedestrians, tmp_path):
    run, console = tmp_path / "run", tmp_path / "console.txt"
    process = Fork(lambda: train_net(*arguments(run, *ENDLESS)), console, new_session=True)
    code, iteration = stopped(process, run, console, signal.SIGINT)
    assert code == 130, console.read_text()[-3000:]
    # in an interpreter that has imported nothing, so that whatever would be shown is
    options = [*ENDLESS[2:], "SOLVER.MAX_ITER", iteration + 3, "DATASETS.TEST", "()"]
    assert start(pedestrians, console, *arguments(run, "--resume", *options)).wait(120) == 0, console.read_text()
    assert_no_warnings(console.read_text())
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] == iteration + 2


def test_a_batch_systems_timeout_leaves_a_checkpoint_of_two_processes(pedestrians, tmp_path):
    run, console = tmp_path / "run", tmp_path / "console.txt"
    process = start(pedestrians, console, *arguments(run, "--num-gpus=2", *ENDLESS))
    code, iteration = stopped(process, run, console, signal.SIGTERM)
    assert code == 143 and iteration >= 0, console.read_text()[-3000:]
    assert_no_warnings(console.read_text())


def test_evaluation_only_writes_the_same_numbers_again_for_the_classes_that_were_trained(train_net, tmp_path, capsys):
    trained, evaluated = tmp_path / "trained", tmp_path / "evaluated"
    options = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    assert train_net(*arguments(trained, *options)) == 0
    weights = ["MODEL.WEIGHTS", trained / "model_final.pth"]
    assert train_net(*arguments(evaluated, "--eval-only", *weights, *options)) == 0
    after_training = json.loads((trained / "metrics.json").read_text().splitlines()[-1])
    again = json.loads((evaluated / "metrics.json").read_text())
    assert again["segm/AP"] == after_training["segm/AP"] and again["bbox/AP50"] == after_training["bbox/AP50"]
    assert "| segm/AP " in (evaluated / "log.txt").read_text()
    assert trained_classes(str(trained / "model_final.pth")) == ["person"]
    Image.new("RGB", (64, 64)).save(tmp_path / "1.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 16, 16], "area": 256, "iscrowd": 0}
    other = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [{**box, "segmentation": [[8, 8, 24, 8, 24, 24, 8, 24]]}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (tmp_path / "dogs.json").write_text(json.dumps(other))
    dogs = ["DATASETS.COCO_JSON", (("dogs", str(tmp_path / "dogs.json"), str(tmp_path)),), "DATASETS.TEST", ("dogs",)]
    assert train_net(*arguments(tmp_path / "dogs", "--eval-only", *weights, *dogs)) == 2
    assert "(dog; person in the model's training)" in capsys.readouterr().err


def test_evaluation_needs_weights(train_net, tmp_path, capsys):
    assert train_net(*arguments(tmp_path / "run", "--eval-only")) == 2
    assert "add MODEL.WEIGHTS" in capsys.readouterr().err


def test_resume_refuses_what_cannot_be_continued(train_net, tmp_path, capsys):
    """Each refusal leaves every file as it was, the run's config.yaml included."""
    options = ["DATASETS.TEST", "()"]
    assert train_net(*arguments(tmp_path, *options)) == 0
    log = tmp_path / "log.txt"
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path != log}
    for change, sentence in (
        (["MODEL.GAN.MODE", "joint"], "begun with MODEL.GAN.MODE 'alternating' (now 'joint'); resume"),
        (["MODEL.GAN.ENABLED", False], "begun with MODEL.GAN.ENABLED True (now False)"),
        (["SOLVER.DISC.OPTIMIZER", "sgd"], "begun with SOLVER.DISC.OPTIMIZER 'adam' (now 'sgd')"),
    ):
        # the flag last, where a user adds it
        assert train_net(*arguments(tmp_path, *options, *change), "--resume") == 2
        assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path != log} == before
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    assert train_net(*arguments(tmp_path, *options), "--resume") == 2
    assert "does not name one of the checkpoints there (model_final.pth)" in capsys.readouterr().err


def test_a_full_disk_at_the_start_is_a_sentence(capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "log.txt")

    assert run_command_line(full) == 2
    assert capsys.readouterr().err == "error: The disk is full for log.txt; free some space and start again.\n"


def test_the_log_holds_the_reason_of_a_failure(train_net, own_pedestrians, tmp_path):
    # which only decoding them shows
    for picture in (own_pedestrians / "PennFudanPed/PNGImages").iterdir():
        picture.write_bytes(picture.read_bytes()[:-2000])
    assert train_net(*arguments(tmp_path / "run")) == 2
    assert "the image cannot be decoded" in (tmp_path / "run/log.txt").read_text()


def test_another_runs_checkpoint_is_not_overwritten(train_net, tmp_path, capsys):
    assert train_net(*arguments(tmp_path, "DATASETS.TEST", "()")) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert train_net(*arguments(tmp_path, "DATASETS.TEST", "()")) == 2
    assert "already holds a checkpoint of another run (model_final.pth); add --resume" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    "options, sentence",
    [
        (
            ["MODEL.GAN.MASK.DISCRIMINATOR", "Critic"],
            "'Critic', which is unknown; the known ones are 'MaskedFeature",
        ),
        (
            ["MODEL.GAN.MASK.OBJECTIVE", "Hinch"],
            "'Hinch', which is unknown; did you mean 'Hinge'? The known ",
        ),
        (["MODEL.GAN.MODE", "both"], "MODEL.GAN.MODE is 'both', which is unknown; the known ones are 'joint', 'altern"),
        (["MODEL.GAN.MODUS", "joint"], "command line's config options are wrong: Non-existent key: MODEL.GAN.MODUS"),
        (["DATASETS.TRAIN", "('penn_fudan_train_c',)"], "'penn_fudan_train_c' is not registered; did you mean penn_f"),
        (["DATASETS.TRAIN", "('cityscapes_fine_instance_seg_train',)"], "make_toy_cityscapes.py"),
        (["MODEL.META_ARCHITECTURE", "ProposalNetwork"], "knows where ProposalNetwork draws its masks"),
        (["MODEL.WEIGHTS", __file__.replace(".py", ".nothing")], "cannot be read"),
        (["MODEL.WEIGHTS", __file__], "test_train_net.py is not a checkpoint"),
        (["MODEL.MASK_ON", "False"], "needs a mask head to observe, and StandardROIHeads has none"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(train_net, tmp_path, capsys, options, sentence):
    assert train_net(*arguments(tmp_path / "run", *options)) == 2
    assert "error: " in (said := capsys.readouterr().err)
    assert sentence in said[said.rindex("error: ") :]
    assert not list(tmp_path.rglob("*.pth"))


def test_an_output_folder_that_cannot_be_written(train_net, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert train_net(*arguments(tmp_path / "file/run")) == 2
    assert "is not writable" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["MODEL: [", "MODEL:\n  GANN: 1\n"])
def test_a_broken_config_is_named(train_net, tmp_path, capsys, content):
    config = tmp_path / "config.yaml"
    config.write_text(content)
    assert train_net(*arguments(tmp_path / "run", config=config)) == 2
    assert f"The config file {config} is wrong" in capsys.readouterr().err


@pytest.fixture
def own_pedestrians(pedestrians, tmp_path, monkeypatch):
    """A copy of the made-up pedestrians that a test may spoil."""
    root = tmp_path / "datasets"
    shutil.copytree(pedestrians, root)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    return root


def without_instances(root, every):
    for mask in sorted((root / "PennFudanPed/PedMasks").iterdir())[::every]:
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(mask)


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_images_without_instances_just_train(train_net, own_pedestrians, tmp_path, mode, crop):
    without_instances(own_pedestrians, every=2)
    options = ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "INPUT.CROP.ENABLED", crop, "MODEL.GAN.MODE", mode]
    assert train_net(*arguments(tmp_path / "run", *options, "SOLVER.MAX_ITER", 8, "SOLVER.IMS_PER_BATCH", 1)) == 0


def test_a_set_without_any_instance_is_a_sentence(train_net, own_pedestrians, tmp_path, capsys):
    without_instances(own_pedestrians, every=1)
    assert train_net(*arguments(tmp_path / "run")) == 2
    assert "there is nothing to train on" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode_is_named(train_net, own_pedestrians, tmp_path, capsys, workers):
    root = own_pedestrians
    for image in (root / "PennFudanPed/PNGImages").iterdir():
        image.write_bytes(image.read_bytes()[:900])
    assert train_net(*arguments(tmp_path / "run", "DATALOADER.NUM_WORKERS", workers)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and ": the image cannot be decoded" in error


def test_a_failed_run_with_workers_ends(own_pedestrians, tmp_path):
    """In a process of its own: its workers, which outlive one signal, must not keep it from ending."""
    for image in (own_pedestrians / "PennFudanPed/PNGImages").iterdir():
        image.write_bytes(image.read_bytes()[:900])
    console = tmp_path / "console"
    process = start(own_pedestrians, console, *arguments(tmp_path / "run", "DATALOADER.NUM_WORKERS", 2))
    assert process.wait(timeout=60) == 2
    assert b"cannot be decoded" in console.read_bytes()
