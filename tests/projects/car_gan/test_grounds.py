"""Scores of cars that are taken off the key colour first."""

import json

import numpy as np
import pytest
import torch
from car_gan.crops.dataset import CropDataset, has_ground
from car_gan.pictures import GREEN
from car_gan.runs.scores import OnGround
from PIL import Image

from gan_plugin import UserError
from gan_plugin.evaluation.image_features import BuiltinExtractor, extract
from gan_plugin.evaluation.image_scores import frechet_distance

EXTRACTOR = BuiltinExtractor()


def boxes(count, key, seed=0, size=16):
    """(N, 3, S, S) bytes: boxes of random dark colours on a plain ground, and their alpha (N, 1, S, S)."""
    random = torch.Generator().manual_seed(seed)
    images = torch.tensor(key).view(1, 3, 1, 1).repeat(count, 1, size, size)
    alpha = torch.zeros(count, 1, size, size, dtype=torch.long)
    for image, mask in zip(images, alpha, strict=True):
        width = int(torch.randint(6, 13, (), generator=random))
        image[:, 4:12, 2 : 2 + width] = torch.randint(0, 50, (3, 1, 1), generator=random)
        mask[:, 4:12, 2 : 2 + width] = 255
    return images.byte(), alpha.byte()


def test_a_car_keeps_its_colours_and_loses_its_green():
    images, alpha = boxes(5, GREEN)
    expected = torch.where(alpha > 0, images, torch.tensor(128, dtype=torch.uint8))
    grey = OnGround(EXTRACTOR, "grey", GREEN, 16)
    for given in (images, torch.cat([images, alpha], dim=1)):
        assert (grey.place_cars(given).int() - expected.int()).abs().max() <= 1
    # a pixel that is half car and half key is half car and half grey
    half = torch.tensor([(100 + 51) // 2, (40 + 255) // 2, (20 + 51) // 2, 128], dtype=torch.uint8).view(1, 4, 1, 1)
    mixed = OnGround(EXTRACTOR, "grey", GREEN, 1).place_cars(half).flatten().tolist()
    assert mixed == pytest.approx([(100 + 128) / 2, (40 + 128) / 2, (20 + 128) / 2], abs=2)


def test_the_green_no_longer_counts_and_the_name_says_so():
    """The same cars on two key colours: far from each other as they are, equal on grey."""
    one, other = (boxes(80, key)[0] for key in (GREEN, (51, 51, 255)))
    as_they_are = [extract(EXTRACTOR, [images]).values for images in (one, other)]
    grounds = [OnGround(EXTRACTOR, "grey", key, 16) for key in (GREEN, (51, 51, 255))]
    on_grey = [extract(ground, [images]) for ground, images in zip(grounds, (one, other), strict=True)]
    apart, together = frechet_distance(*as_they_are), frechet_distance(*(part.values for part in on_grey))
    assert together < 1e-3 * apart
    assert on_grey[0].extractor == f"{EXTRACTOR.name}, of cars keyed and put on grey"
    assert on_grey[0].label == "builtin_on_grey"


def test_a_folder_gives_the_centre_of_each_picture(tmp_path):
    for index, colour in enumerate([(200, 10, 10), (10, 10, 200)]):
        wide = np.zeros((16, 40, 3), np.uint8)
        wide[:, 12:28] = colour
        Image.fromarray(wide).save(tmp_path / f"{index}.png")
    images, alpha = boxes(4, GREEN)
    ground = OnGround(EXTRACTOR, str(tmp_path), GREEN, 16)
    assert f"put on {tmp_path.name} (2 pictures, SHA-256 " in ground.name
    placed = ground.place_cars(images)
    for index in range(4):
        colour = torch.tensor([(200, 10, 10), (10, 10, 200)][index % 2])
        off = placed[index].permute(1, 2, 0)[alpha[index, 0] == 0].int()
        assert (off - colour).abs().max() <= 1


def test_what_cannot_be_keyed_is_not_scored_twice(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    line = {"file": "a.png", "source_image": "a"}
    for more, expected in (({}, True), ({"mode": "context"}, False), ({"key": [128, 128, 128]}, False)):
        (tmp_path / "manifest.jsonl").write_text(json.dumps(line | more))
        assert has_ground(CropDataset(tmp_path, 8, split="all")) == expected


def test_what_is_no_ground_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="TEST.BACKGROUND is 'nowhere'; set it to grey, to a folder"):
        OnGround(EXTRACTOR, "nowhere", GREEN, 16)
    with pytest.raises(UserError, match="holds no"):
        OnGround(EXTRACTOR, str(tmp_path), GREEN, 16)
