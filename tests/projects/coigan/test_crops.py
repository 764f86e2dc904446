"""Scores of crops and visible labels, on squares of known brightness whose distances follow from a formula."""

import json

import numpy as np
import pytest
import torch
from coigan.augmentation import Source, is_visible, noise_level, write_augmented
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet, write_line_set
from coigan.data.placer import Placement
from coigan.data.regions import tight, to_record
from coigan.evaluation.crops import POOLED, Crops, crop, crop_scores, real_crops, synthetic_crops

from gan_plugin.errors import UserError
from gan_plugin.evaluation.image_features import extract
from gan_plugin.evaluation.image_scores import frechet_distance

SIDE, STEEL, DEFECT = 64, 120, 60


class Brightness:
    """A network whose one feature is the mean grey of an image; it counts the images that it has seen."""

    name = label = "brightness"
    seen = 0

    def __call__(self, images):
        self.seen += len(images)
        means = images.float().mean((1, 2, 3))[:, None]
        return means, torch.zeros(len(images), 2)


class Squares:
    """Places a square of 12 pixels, with room for its margin."""

    def place(self, rng):
        mask = square(*rng.integers(4, SIDE - 16, 2))
        return Placement(mask[None], np.zeros((1, SIDE, SIDE, 3), np.uint8), [(0, mask, "square")])


def square(y, x, side=12):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def sheet(rng):
    return np.clip(rng.normal(STEEL + rng.normal(0, 2), 4, (SIDE, SIDE, 1)).repeat(3, 2), 0, 255).astype(np.uint8)


def dent(image, placement, seed):
    """What real defects look like."""
    rng = np.random.default_rng(seed)
    return np.where(placement.masks.any(0)[..., None], rng.normal(DEFECT, 4, image.shape), image).astype(np.uint8)


def nothing(image, placement, seed):
    return image


def write_real(folder, seed, clean=30, damaged=24):
    """Tiles of which most are clean, as in a real test part."""
    rng, records = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for number in range(clean + damaged):
        pixels, regions = sheet(rng), []
        if number < damaged:
            placement = Squares().place(rng)
            pixels = dent(pixels, placement, int(rng.integers(2**31)))
            regions = [tight(placement.masks[0], 0)]
        write_png(folder / f"{number:03d}.png", pixels)
        entries = [to_record(region, SIDE, SIDE) for region in regions]
        records.append({"img": f"{number:03d}.png", "size": [SIDE, SIDE], "polygons": entries})
    write_line_set(folder, records, ("dent",), ".")
    return LineSet(folder)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(5)
    (folder / "base").mkdir()
    for number in range(40):
        write_png(folder / "base" / f"{number}.png", sheet(rng))
    source = Source(sorted((folder / "base").iterdir()), Squares(), ("dent",))
    return folder, source, write_real(folder / "train", 1), write_real(folder / "test", 2)


def test_painting_nothing_is_worse_than_true_defects(parts, tmp_path):
    folder, source, train, test = parts
    network = Brightness()
    reference = real_crops(test, network, 100, tmp_path)
    made = {name: synthetic_crops(source, paint, network, 24) for name, paint in (("true", dent), ("none", nothing))}
    rows = {"real": real_crops(train, network, 100, tmp_path), **{name: crops for name, (crops, _) in made.items()}}
    scores = crop_scores(reference, rows, ("dent",))
    fids = {row: found["FID"] for row, found in scores[POOLED]["rows"].items()}
    # a square of 12 in a window of 20: the mean grey differs by 144 of 400 pixels times 60, all of it for nothing
    assert fids["none"] == pytest.approx((0.36 * (STEEL - DEFECT)) ** 2, rel=0.2)
    assert max(fids["true"], fids["real"]) < 0.1 * fids["none"]
    assert scores[POOLED]["rows"]["none"]["recall"] < 0.3 < scores[POOLED]["rows"]["true"]["recall"]
    assert scores["dent"] == scores[POOLED] and scores["dent"]["crops"] == 24
    assert made["none"][1] == (24, 24) and made["true"][1] == (0, 24)
    # while whole pictures, most of the real ones being clean, take those without any defect for the better ones
    whole = {}
    for name, paint in (("true", dent), ("none", nothing)):
        pictures = [paint(sheet(rng), Squares().place(rng), seed) for seed in range(60) for rng in [_rng(seed)]]
        whole[name] = frechet_distance(*(extract(network, _stack(p)).values for p in (_images(test), pictures)))
    assert whole["none"] < whole["true"]


def _rng(seed):
    return np.random.default_rng([7, seed])


def _images(lines):
    # nine of ten clean
    return [lines.image(record) for number, record in enumerate(lines.store) if number >= 21]


def _stack(pictures):
    return [torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)]


def test_one_dimensional_distances_by_formula():
    draw = np.random.default_rng(0)
    values = {
        name: draw.normal(mean, spread, (40, 1)) for name, mean, spread in (("a", 3, 2), ("b", 1, 1), ("c", 0, 3))
    }
    labels = np.arange(40) % 2

    def crops(name, many=40):
        return Crops(torch.from_numpy(values[name][:many]).float(), labels[:many])

    found = crop_scores(crops("c"), {"a": crops("a"), "b": crops("b")}, ("even", "odd", "none"))
    for name, chosen in ((POOLED, labels >= 0), ("even", labels == 0), ("odd", labels == 1)):
        assert found[name]["crops"] == chosen.sum()
        for row in "ab":
            ours, theirs = values[row][chosen], values["c"][chosen]
            expected = (ours.mean() - theirs.mean()) ** 2 + (ours.std(ddof=1) - theirs.std(ddof=1)) ** 2
            assert found[name]["rows"][row]["FID"] == pytest.approx(expected, rel=1e-3)
    assert found["none"] == {"crops": 0, "real_crops": 0, "rows": {}}
    # the shorter row decides how many are taken; of fewer than six nothing is said
    short = crop_scores(crops("c"), {"a": crops("a"), "b": crops("b", 10)}, ("even", "odd"))
    assert short[POOLED]["crops"] == 10 and short[POOLED]["rows"]["b"]["FID"] > 0
    assert short["even"] == {"crops": 5, "real_crops": 20, "rows": {}}


@pytest.mark.parametrize("y, x, side", [(20, 30, 12), (0, 60, 4), (10, 12, 48)])
def test_a_crop_is_the_box_with_its_margin(y, x, side):
    margin = max(4, round(side / 8))
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[max(0, y - margin) : y + side + margin, max(0, x - margin) : x + side + margin] = 200
    result = crop(pixels, square(y, x, side))
    assert result.shape == (3, 128, 128) and bool((result == 200).all())
    # one row or column further there is black in it, but where the picture ends
    for axis, place in ((0, y), (1, x)):
        moved = np.roll(pixels, 1, axis)
        if place > 0 and place + side + margin < SIDE:
            assert not bool((crop(moved, square(y, x, side)) == 200).all())


def test_features_of_real_crops_are_kept_until_a_picture_changes(tmp_path):
    lines, network = write_real(tmp_path / "real", 3, clean=1, damaged=8), Brightness()
    first = real_crops(lines, network, 5, tmp_path / "cache")
    again = real_crops(lines, network, 5, tmp_path / "cache")
    assert network.seen == 5 and torch.equal(first.values, again.values) and again.labels.tolist() == [0] * 5
    for file in (tmp_path / "real").glob("*.png"):
        write_png(file, np.full((SIDE, SIDE, 3), 9, np.uint8))
    assert real_crops(lines, network, 5, tmp_path / "cache").values.tolist() == [[9.0]] * 5


@pytest.mark.parametrize("deviation", [2.0, 6.0])
def test_the_noise_of_a_picture_and_what_is_hidden_in_it(deviation):
    rng = np.random.default_rng(0)
    slope = np.linspace(60, 180, 96)[:, None, None] + np.linspace(0, 30, 96)[None, :, None]
    base = np.round(slope + rng.normal(0, deviation, (96, 96, 3))).astype(np.uint8)
    assert noise_level(base) == pytest.approx(deviation, rel=0.08)
    mask = np.zeros((96, 96), bool)
    mask[30:50, 30:50] = True
    for factor, seen in ((0.4, False), (1.6, True)):
        change = round(factor * deviation) or 1
        assert is_visible(base, base + np.uint8(change) * mask[..., None].astype(np.uint8), mask) is seen
    flat = np.full((8, 8, 3), 100, np.uint8)
    assert noise_level(flat) == 0 and not is_visible(flat, flat, np.ones((8, 8), bool))


def test_invisible_labels_are_counted_and_left_out(parts, tmp_path):
    _, source, *_ = parts

    def every_second(image, placement, seed):
        every_second.calls += 1
        return dent(image, placement, seed) if every_second.calls % 2 else image

    every_second.calls = 0
    path = write_augmented(tmp_path / "all", source, every_second, 6, 0, {})
    content = json.loads(path.read_text())
    assert (content["info"]["invisible_labels"], content["info"]["labels"]) == (3, 6)
    assert len(content["annotations"]) == 6
    facts = [json.loads(line) for line in (tmp_path / "all/provenance.jsonl").read_text().splitlines()]
    assert [entry["visible"] for fact in facts for entry in fact["objects"]] == [True, False] * 3
    every_second.calls = 0
    content = json.loads(write_augmented(tmp_path / "some", source, every_second, 6, 0, {}, None, True).read_text())
    assert len(content["images"]) == len(content["annotations"]) == 6  # others were made for those without a label
    assert (content["info"]["invisible_labels"], content["info"]["labels"]) == (5, 11)
    assert len(list((tmp_path / "some/images").iterdir())) == 6
    every_second.calls = 0
    counted = json.loads(write_augmented(tmp_path / "n", source, every_second, {0: 4}, 0, {}, None, True).read_text())
    assert counted["info"]["objects"] == {"dent": 4} == {"dent": len(counted["annotations"])}
    with pytest.raises(UserError, match="100 pictures in a row have no visible label"):
        write_augmented(tmp_path / "never", source, nothing, 6, 0, {}, None, True)
    assert not (tmp_path / "never").exists()
