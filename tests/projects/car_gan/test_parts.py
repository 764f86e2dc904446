"""Drawings of the parts that arms use, and rows of samples over time."""

import json

import numpy as np
import pytest
import torch
from car_gan.config import load_config
from car_gan.runs import report
from car_gan.runs.pictures import key_leak, progress
from car_gan.runs.report import parts_used
from PIL import Image


def test_each_arm_gets_the_drawings_of_its_own_parts(tmp_path):
    for name, score in (("filtered", 0.95), ("all", None)):
        line = {"file": "a.png", "source_image": "a", "detector_score": score}
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.jsonl").write_text(json.dumps(line))

    def arm(crops, *opts):
        return load_config("", ["DATASETS.CROPS", str(tmp_path / crops), *opts])

    logan = ["MODEL.LOGAN.ENABLED", "True"]
    arms = {
        "plain": arm("all"),
        "a": arm("filtered", "MODEL.DISCRIMINATOR.ATTENTION", "(32,)"),
        "b": arm("all", *logan),
        "c": arm("all", *logan, "MODEL.LOGAN.ALPHA", "0.5"),
    }
    used = [(drawing.title.split(":")[0].split(",")[0], names) for drawing, names in parts_used(arms)]
    assert used == [
        ("Mask R-CNN", ["a"]),
        ("Self-attention", ["a"]),
        ("Latent optimisation", ["b", "c"]),
        ("How far z moves", ["b"]),
        ("How far z moves", ["c"]),
    ]
    assert parts_used({"plain": arms["plain"]}) == []


def test_the_steps_that_are_drawn_are_those_of_the_formula(monkeypatch):
    drawn = {}
    monkeypatch.setattr(report, "draw_lines", lambda title, lines, **_: drawn.update(lines) or title)
    title = report.latent_steps(0.9, 4.0)
    natural, plain = drawn.values()
    norm, step = natural.T
    np.testing.assert_allclose(step, 0.9 * norm / (4 + norm**2), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(plain[:, 1], 0.225 * norm, rtol=1e-5)
    # the derivative is 0 where |g| is the root of beta
    assert "at most 0.225, at |g| = 2" in title and norm[step.argmax()] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("key", [(51, 255, 51), (20, 20, 240), (255, 0, 255)])
def test_the_leak_is_what_at_the_border_is_not_the_key_of_the_crops(key):
    images = torch.tensor(key).view(1, 3, 1, 1).expand(2, 3, 16, 16) / 127.5 - 1
    assert key_leak(images, key)[1] == 0 and key_leak(images, (120, 120, 120))[1] == 1
    images = images.clone()
    # a quarter of the border of one of two
    images[0, :, :2] = 0
    shown, share = key_leak(images, key)
    border = 16 * 16 - 12 * 12
    assert share == pytest.approx(32 / (2 * border)) and (shown == (213, 94, 0)).all(-1).sum() == 32


def test_rows_over_time_are_the_first_rows_of_grids(tmp_path):
    for number in range(10):
        grid = np.full((2 + 2 * 10, 2 + 8 * 10, 3), 255, np.uint8)
        grid[2:10], grid[12:20] = number, 200
        Image.fromarray(grid).save(tmp_path / f"iter_{number * 5:07d}.png")
    picture, iterations = progress(tmp_path, 8, most=4)
    assert iterations == [0, 15, 30, 45] and picture.shape == (4 * 10 + 2, 82, 3)
    assert picture[2::10, 5, 0].tolist()[:4] == [0, 3, 6, 9] and not (picture == 200).any()
    assert progress(tmp_path / "none", 8) is None
