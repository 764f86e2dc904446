"""A Mask R-CNN small enough to train in a test, and images for it."""

import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import small_models
import torch
from detectron2.config import CfgNode
from PIL import Image

from gan_plugin.data.builtin import register_penn_fudan

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)
# a slow machine is no failure
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture
def tiny_cfg() -> CfgNode:
    """The scratch config made smaller still: 2 classes, adversarial, joint."""
    return small_models.tiny_cfg()


@pytest.fixture
def make_inputs():
    """(count, instances, seed, side) -> model inputs."""
    return small_models.make_inputs


@pytest.fixture
def inputs() -> list[dict]:
    """Two images of three objects."""
    return small_models.make_inputs()


@pytest.fixture(scope="session")
def pedestrians(tmp_path_factory) -> Path:
    """A data root with 16 made-up images in PennFudan's layout: 7 in A, 7 in B, 2 for evaluation."""
    root = tmp_path_factory.mktemp("datasets")
    folder = root / "PennFudanPed"
    for part in ("PNGImages", "PedMasks"):
        (folder / part).mkdir(parents=True)
    for number, record in enumerate(small_models.make_inputs(16, instances=2, seed=5)):
        # a later mask hides an earlier one, as in an index image
        index = np.zeros((96, 96), np.uint8)
        for label, mask in enumerate(record["instances"].gt_masks.tensor, start=1):
            index[mask.numpy()] = label
        pixels = record["image"].clamp(0, 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / "PNGImages" / f"P{number:05d}.png")
        Image.fromarray(index).save(folder / "PedMasks" / f"P{number:05d}_mask.png")
    return root


@pytest.fixture
def run_cfg(tiny_cfg, pedestrians, tmp_path) -> CfgNode:
    """The tiny model on the made-up pedestrians, one image a batch, three iterations, no evaluation."""
    register_penn_fudan(pedestrians)
    cfg = tiny_cfg
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    Path(cfg.OUTPUT_DIR).mkdir()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.DATASETS.TRAIN = ("penn_fudan_train_a", "penn_fudan_train_b")
    cfg.DATASETS.TEST = ()
    cfg.INPUT.MIN_SIZE_TRAIN = (64, 80, 96)
    cfg.INPUT.MIN_SIZE_TEST = 96
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 3
    cfg.SOLVER.STEPS = ()
    cfg.SOLVER.WARMUP_ITERS = 0
    return cfg


@pytest.fixture
def data_root() -> Path:
    """The folder that holds PennFudanPed; tests that need real images skip where it is absent."""
    root = Path(os.environ.get("GAN_PLUGIN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "PennFudanPed").is_dir():
        pytest.skip("needs PennFudanPed; set GAN_PLUGIN_TEST_DATA to the folder that holds it")
    return root
