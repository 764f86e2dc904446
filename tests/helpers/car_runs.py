"""Short trainings of narrow networks on eleven drawn cars."""

from pathlib import Path

import numpy as np

CONFIGS = Path(__file__).resolve().parents[2] / "projects/CarGAN/configs"
NARROW = "MODEL.DEVICE cpu INPUT.SIZE 32 MODEL.GENERATOR.WIDTH 4 MODEL.DISCRIMINATOR.WIDTH 4 MODEL.LATENT.SIZE 8"
SHORT = "SOLVER.IMS_PER_BATCH 4 TEST.FEATURES random TEST.SAMPLES 16 TEST.EVAL_EPOCHS 1 VIS_EPOCHS 1"
SHORT += " SOLVER.CHECKPOINT_EPOCHS 1"


def car(width, colour):
    """A (40, 64, 3) picture of a box on wheels on the key colour."""
    pixels = np.full((40, 64, 3), (51, 255, 51), np.uint8)
    left = (64 - width) // 2
    pixels[14:30, left : left + width] = colour
    pixels[28:36, left + 4 : left + 12] = pixels[28:36, left + width - 12 : left + width - 4] = 20
    return pixels


def options(crops, out, *more):
    return [*NARROW.split(), *SHORT.split(), "DATASETS.CROPS", crops, "OUTPUT_DIR", out, *more]


def preset(name):
    return ["--config-file", CONFIGS / f"{name}.yaml"]
