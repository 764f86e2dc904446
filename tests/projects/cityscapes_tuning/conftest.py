"""A toy Cityscapes, a model of 0.2 million parameters, and studies that train it for a few iterations."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import partial
from glob import glob
from pathlib import Path

import pytest
import yaml
from cityscapes_tuning.data.parts import SEED002_IMAGES, TEN
from cityscapes_tuning.search import worker as worker_module
from cityscapes_tuning.search.context import Context
from cityscapes_tuning.search.study import load_study
from cityscapes_tuning.search.worker import Worker
from cityscapes_tuning.search.workspace import set_up
from forked_runs import forked_runs
from support import SMALLEST_MODEL

from gan_plugin.data.toy_cityscapes import write_toy_cityscapes

ROOT = Path(__file__).resolve().parents[3]
QUICK = ROOT / "configs/quick_schedules/mask_rcnn_cityscapes_quick.yaml"
TINY = {
    **SMALLEST_MODEL,
    "INPUT.MIN_SIZE_TRAIN": [64],
    "INPUT.MIN_SIZE_TEST": 64,
    "INPUT.RANDOM_FLIP": "none",
    "SOLVER.OPTIMIZER": "sgd",
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.IMS_PER_BATCH": 2,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "TEST.CITYSCAPES_EVALUATOR": "fast",
    "TEST.COCO_EVALUATOR": "faster",
    "lr": 0.01,
}
PARTS = {
    "train": {"split": "train", "cities": ["tinytown"]},
    "val": {"split": "train", "cities": ["toyville"]},
    "test": {"split": "val"},
}


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder to be DETECTRON2_DATASETS: 4 images of tinytown, 4 of toyville, 2 of smallburg, 128x64 pixels."""
    root = tmp_path_factory.mktemp("toy")
    write_toy_cityscapes(root, 8, 2, size=(128, 64))
    return root


@pytest.fixture
def toy_root(toy, monkeypatch):
    """The same, set as the root of the data sets."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(toy))
    return toy


def trial_tool():
    spec = importlib.util.spec_from_file_location("trial_tool", ROOT / "projects/CityscapesTuning/train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def forked():
    """To stand in for TrainNet."""
    return forked_runs(trial_tool().main)


@pytest.fixture(scope="session")
def write_study():
    """(folder, phases, more keys) -> path of a study on the toy set."""

    def write(folder, phases, name="study", **more):
        settings = {**TINY, **more.pop("settings", {})}
        content = {
            "name": name,
            "config": str(QUICK),
            "data": {"parts": PARTS},
            "settings": settings,
            "phases": phases,
            **more,
        }
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write


@pytest.fixture
def study_file(write_study, tmp_path):
    """(phases, more keys) -> path of a study on the toy set."""
    return partial(write_study, tmp_path)


@pytest.fixture(scope="session")
def postgresql():
    """The URL of an empty database on a server of its own."""
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary, a driver of PostgreSQL")
    found = [shutil.which("initdb"), *glob("/usr/lib/postgresql/*/bin/initdb")]
    tools = next((Path(os.path.realpath(file)).parent for file in found if file), None)
    if tools is None:
        pytest.skip("needs PostgreSQL (apt-get install postgresql)")
    folder, user = Path(tempfile.mkdtemp(prefix="tuning-")), []
    if not os.geteuid():
        # it refuses to be root's
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]

    def call(*arguments):
        subprocess.run([*user, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=120)

    control = [tools / "pg_ctl", "-D", folder / "data", "-w"]
    call(tools / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tuning")
    call(*control, "-l", folder / "log", "-o", f"-k {folder} -c listen_addresses=''", "start")
    yield f"postgresql+psycopg2://tuning@/postgres?host={folder}"
    call(*control, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def work(toy_root, forked, monkeypatch):
    """(study file, folder) -> (context, table, findings) once this process has done all of it."""
    monkeypatch.setattr(worker_module, "_POLL_SECONDS", 0.05)

    def run(file, folder, **options):
        context, table = set_up(file, folder)
        findings = Worker(context, table, process=forked, say=lambda text: None, **options).work()
        return context, table, findings

    return run


@pytest.fixture
def slides():
    """The slides' study on images that are not there."""
    study = load_study(ROOT / "projects/CityscapesTuning/configs/seed002_study.yaml")
    return Context(study, Path("nowhere"), SEED002_IMAGES, TEN, 1, "sgd")
