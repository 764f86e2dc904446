"""Toy scenes, and the command line."""

from pathlib import Path

import cars
import pytest
from forked_runs import Forked

from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.errors import run_command_line

CONFIGS = Path(cars.__file__).parent / "configs"


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder with cityscapes/ in it: fourteen drawn scenes to train on, two to validate."""
    root = tmp_path_factory.mktemp("toy")
    write_toy_cityscapes(root, 14, 2, size=(384, 192))
    return root


@pytest.fixture
def cli():
    """Arguments -> exit code of cars.py."""
    return lambda *arguments: run_command_line(lambda: cars.main([str(argument) for argument in arguments]))


@pytest.fixture(scope="session")
def toy_crops(toy, tmp_path_factory):
    """RGBA crops of all the toy's cars that are seen in part at least."""
    folder = tmp_path_factory.mktemp("built") / "crops"
    cars.main(["build", "--cityscapes", str(toy), "--output", str(folder), "--config-file",
               str(CONFIGS / "build_toy.yaml"), "FILTER.MIN_VISIBLE", "0.5"])  # fmt: skip
    return folder


@pytest.fixture
def forked_runs():
    """To stand in for TrainNet: runs of the trainer without a new interpreter for each."""
    return Forked
