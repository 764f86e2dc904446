"""Toy scenes, and the command line."""

import cars
import numpy as np
import pytest
import train_net
from car_runs import CONFIGS, car, options, preset
from forked_runs import forked_runs
from PIL import Image

from gan_plugin.data.toy_cityscapes import write_toy_cityscapes
from gan_plugin.errors import run_command_line


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A folder with cityscapes/ in it: thirty-two drawn scenes to train on, two to validate."""
    root = tmp_path_factory.mktemp("toy")
    write_toy_cityscapes(root, 32, 2, size=(384, 192))
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
def forked():
    """To stand in for TrainNet: runs of the trainer without a new interpreter for each."""
    return forked_runs(train_net.main)


@pytest.fixture(scope="session")
def crops(tmp_path_factory):
    """Eleven cars: nine to train on by the default split of an eighth."""
    folder = tmp_path_factory.mktemp("cars")
    random = np.random.RandomState(0)
    for index in range(11):
        pixels = car(random.randint(36, 60), random.randint(0, 200, 3))
        Image.fromarray(pixels).save(folder / f"car{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def run(crops, tmp_path_factory):
    """A short training of the preset with all ingredients of ours, through the command line."""
    out = tmp_path_factory.mktemp("runs") / "sa"
    arguments = ["train", *preset("sa_dcgan"), *options(crops, out, "SOLVER.MAX_ITER", 4, "MODEL.GAN.EMA.DECAY", 0.9)]
    arguments += ["TEST.FEATURES", "auto"]
    assert not cars.main([str(argument) for argument in [*arguments, "MODEL.GENERATOR.ATTENTION", "(16,)"]])
    return out
