"""An installation out of a wheel, far from the repository: configs, commands, and a training by them."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from support import SMALLEST_MODEL

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("gan_plugin", "configs", "tools", "setup.py", "pyproject.toml", "README.md", "LICENSE")
# Runs in an empty folder, as a user's script would, all in one process: torch takes seconds to import.
SCRIPT = """
import json, sys
from importlib.metadata import entry_points

def command(name, *arguments):
    sys.argv = [name, *map(str, arguments)]
    [entry] = entry_points(group="console_scripts", name=name)
    assert entry.load()() == 0

command("gan-toy-cityscapes", "data", "--train", 3, "--val", 1, "--size", "256x128")

import gan_plugin, gan_plugin.model_zoo as zoo
config = zoo.get_config_file("quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml")
try:
    zoo.get_config("gan_mask_rcnn_citiscapes.yaml")
except gan_plugin.UserError as error:
    refused = str(error)
report = {
    "files": [gan_plugin.__file__, config],
    "yaml": zoo.get_config("gan_mask_rcnn_cityscapes.yaml").MODEL.META_ARCHITECTURE,
    "lazy": str(zoo.get_config("lazy/gan_mask_rcnn_cityscapes.py").model.architecture),
    "refused": refused,
}
command("gan-train", "--config-file", config, *sys.argv_of_training)
print(json.dumps(report))
"""


def run(*arguments, folder, **environment) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what `pip install` of the wheel puts into site-packages, and bin/ in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in SOURCES:
        path = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, source / name, ignore=ignore) if path.is_dir() else shutil.copy(path, source)
    pip = ("-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, source, folder=out)
    [wheel] = out.glob("gan_plugin-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", "--target", out / "site", wheel, folder=out)
    return out / "site"


def test_the_wheel_is_described_and_its_commands_answer(installed):
    metadata = PathDistribution(next(installed.glob("gan_plugin-*.dist-info")))
    assert metadata.metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.read_text("METADATA").endswith((ROOT / "README.md").read_text().rstrip() + "\n")
    assert len(metadata.metadata.get_all("Project-URL")) >= 1
    commands = metadata.entry_points.select(group="console_scripts")
    # what measures, and needs the checkout for it, is no command of an installation
    tools = {file.stem for file in (ROOT / "tools").glob("*.py") if "\ncommand = " in file.read_text("utf-8")}
    assert {command.module for command in commands} == {f"gan_plugin_tools.{tool}" for tool in tools - {"benchmark"}}
    assert not list((installed / "gan_plugin_tools").glob("*bench*"))
    for command in commands:
        help_text = run(installed / "bin" / command.name, "--help", folder=installed, PYTHONPATH=str(installed)).stdout
        assert "usage: " in help_text


def test_its_configs_are_those_of_the_repository(installed):
    def content(folder):
        files = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (".yaml", ".py"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert content(installed / "gan_plugin/configs") == content(ROOT / "configs")


def test_it_trains_by_its_commands_and_a_config_by_name(installed, tmp_path):
    keys = SMALLEST_MODEL | {
        "SOLVER.MAX_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 1,
        "DATASETS.TEST": "()",
        "DATALOADER.NUM_WORKERS": 0,
        "OUTPUT_DIR": "out",
    }
    options = [str(part) for pair in keys.items() for part in pair]
    script = SCRIPT.replace("sys.argv_of_training", repr(options))
    environment = {"PYTHONPATH": str(installed), "DETECTRON2_DATASETS": str(tmp_path / "data")}
    report = json.loads(run("-c", script, folder=tmp_path, **environment).stdout.splitlines()[-1])
    assert all(Path(file).is_relative_to(installed / "gan_plugin") for file in report["files"])
    assert report["yaml"] == "AdversarialRCNN" and "GeneralizedRCNN" in report["lazy"]
    assert "gan_mask_rcnn_citiscapes.yaml" in report["refused"]
    assert "gan_mask_rcnn_cityscapes.yaml" in report["refused"]
    assert (tmp_path / "out/model_final.pth").is_file()
    assert '"loss_disc_mask"' in (tmp_path / "out/metrics.json").read_text()
