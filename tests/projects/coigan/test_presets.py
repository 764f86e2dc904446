"""The configs hold the sources' numbers."""

from pathlib import Path

import pytest
from coigan.config import load_config

CONFIGS = Path(__file__).resolve().parents[3] / "projects/COIGAN/configs"

# weights of the sources' table: L1, smooth L1 (inside, outside, kernel), adversarial, of the reference, perceptual,
# smooth perceptual (inside, outside, kernel), path length, of both discriminators, R1
PRESETS = {
    "Base-COIGAN": (0, (5, 0.1, 1, 31), 20, 8, 0, (0.3, 0.1, 1, 31), 5, 5, 5, 3),
    "ssdd": (0, (2, 0, 1, 11), 5, 0.25, 0, (0.03, 0.015, 0, 21), 1, 3, 0.5, 1),
    "cccd": (0, (13, 0, 1, 17), 6, 0.1, 0, (0.008, 1, 0, 17), 1, 2, 2, 1),
    "ssdd_no_smooth": (2, 0, 5, 0.25, 0.03, 0, 1, 3, 0.5, 1),
    "ssdd_no_smooth_masked": (0, (2, 0, 1, 0), 5, 0.25, 0, (0.03, 0.015, 0, 0), 1, 3, 0.5, 1),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_sources_table(name):
    loss = load_config(str(CONFIGS / f"{name}.yaml")).LOSS
    smooth = [
        (node.WEIGHT, node.INSIDE, node.OUTSIDE, node.KERNEL) if node.WEIGHT else 0
        for node in (loss.L1_SMOOTH, loss.PERCEPTUAL_SMOOTH)
    ]
    found = (loss.L1.WEIGHT, smooth[0], loss.ADVERSARIAL.WEIGHT, loss.REF_ADVERSARIAL.WEIGHT, loss.PERCEPTUAL.WEIGHT)
    found += (smooth[1], loss.PATH_LENGTH.WEIGHT, loss.DISCRIMINATOR.WEIGHT, loss.REF_DISCRIMINATOR.WEIGHT)
    assert (*found, loss.R1.WEIGHT) == PRESETS[name]
    assert loss.PATH_LENGTH.EVERY == 4 and loss.R1.EVERY == 16
