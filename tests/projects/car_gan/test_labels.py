"""Conditional GANs: labels of crops, the projection discriminator, and cars of the colour that is asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from car_gan.config import load_config
from car_gan.crops.dataset import CropDataset, labels_of, main_colour
from car_gan.game import LatentOptimizer, build_game
from car_gan.pictures import GREEN
from car_gan.runs.pictures import label_sheet, strips, walk
from car_gan.runs.trained import Trained, load_trained
from car_runs import car, options, preset
from PIL import Image
from support import assert_same
from torch import nn

from gan_plugin import UserError

COLOURS = {"red": (200, 30, 20), "blue": (30, 40, 210)}


@pytest.mark.parametrize(
    "colour, name",
    [
        ((200, 30, 20), "red"),
        ((190, 10, 60), "red"),
        ((220, 190, 40), "yellow"),
        ((40, 85, 45), "green"),
        ((30, 40, 210), "blue"),
        ((150, 40, 200), "purple"),
        ((30, 25, 20), "black"),
        ((130, 128, 120), "grey"),
        ((240, 240, 245), "white"),
    ],
)
def test_the_main_colour_is_that_of_the_body(colour, name):
    picture = car(50, colour)
    assert main_colour(picture, GREEN) == name
    alpha = (picture != GREEN).any(-1, keepdims=True).astype(np.uint8) * 255
    assert main_colour(np.concatenate([picture, alpha], axis=-1), GREEN) == name


def conditional(*opts):
    names = ["MODEL.LABEL.NAMES", "('a', 'b', 'c')", "MODEL.LABEL.SHARES", "(0.5, 0.3, 0.2)"]
    small = ["INPUT.SIZE", 32, "MODEL.GENERATOR.WIDTH", 4, "MODEL.DISCRIMINATOR.WIDTH", 4, "MODEL.LATENT.SIZE", 6]
    torch.manual_seed(0)
    return build_game(load_config("", ["MODEL.DEVICE", "cpu", *map(str, [*small, *names, *opts])]))


@pytest.mark.parametrize("kind", ["DCGAN", "ResNet"])
def test_the_verdict_is_miyatos_and_koyamas(kind):
    """psi(phi(x)) + <e_y, phi(x)> with the features before the last layer, written out."""
    game = conditional("MODEL.DISCRIMINATOR.NAME", f"{kind}Discriminator").eval()
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([2, 0, 1, 2])
    network = game.discriminator
    with torch.no_grad():
        if kind == "DCGAN":
            features, last = network.layers[:-1](images).flatten(1), network.layers[-1].weight.flatten(1)
            psi = features @ last[0]
        else:
            features, last = network.layers(images).mean((2, 3)), network.verdict.weight
            psi = features @ last[0] + network.verdict.bias[0] + network.verdict.bias[1 + labels]
        expected = psi + (features * last[1 + labels]).sum(1)
        torch.testing.assert_close(game.verdict(images, labels), expected)


def test_latents_carry_labels_by_their_shares_and_latent_optimisation_leaves_them():
    game = conditional()
    z = game.latents.fixed(3000, torch.device("cpu"), 1)
    assert z.shape == (3000, 9) and torch.equal(z[:, 6:].sum(1), torch.ones(3000))
    assert z[:, 6:].mean(0).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    asked = game.latents.fixed(5, torch.device("cpu"), 1, labels=torch.tensor([2] * 5))
    assert asked[:, 8].all() and torch.equal(asked[:, :6], game.latents.fixed(5, torch.device("cpu"), 1)[:, :6])
    weight = torch.arange(1.0, 10.0)
    moved, step = LatentOptimizer(alpha=0.9, beta=5.0, clip=0.5, still=3)(lambda z: z @ weight, asked)
    assert torch.equal(moved[:, 6:], asked[:, 6:]) and float(moved[:, :6].abs().max()) <= 0.5
    # |g|^2 is that of the entries that move: 1 + 4 + ... + 36
    torch.testing.assert_close(step, (0.9 / (5 + 91) * weight[:6]).expand(5, 6))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A build's folder of sixteen cars, red and blue by turns, with a viewpoint in the manifest."""
    folder = tmp_path_factory.mktemp("coloured")
    random, lines = np.random.RandomState(0), []
    for index in range(16):
        colour = np.array(list(COLOURS.values())[index % 2]) + random.randint(-20, 20, 3)
        Image.fromarray(car(random.randint(36, 60), colour.clip(0, 255))).save(folder / f"{index:02d}.png")
        line = {"file": f"{index:02d}.png", "source_image": str(index), "label": "car"}
        lines.append(line | {"viewpoint": ("front", "side")[index // 8]})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_labels_come_from_the_picture_or_the_manifest(coloured):
    crops = CropDataset(coloured, 32, split="all")
    assert labels_of(crops, "colour") == ["red", "blue"] * 8
    assert labels_of(crops, "viewpoint") == ["front"] * 8 + ["side"] * 8
    # without a mask the surroundings would be taken for the car
    around = CropDataset(coloured, 32, split="all")
    around.records[0]["mode"] = "context"
    with pytest.raises(UserError, match="cannot be told from what they lie on, so MODEL.LABEL.KIND cannot be 'colour'"):
        labels_of(around, "colour")
    with pytest.raises(UserError, match="MODEL.LABEL.KIND is 'weight', but .* says nothing of that for 00.png"):
        labels_of(crops, "weight")


def test_a_car_has_the_colour_that_is_asked_for(cli, coloured, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    speed = "SOLVER.BASE_LR 0.004 SOLVER.DISC.BASE_LR 0.001 SOLVER.WEIGHT_DECAY 0 SOLVER.DISC.WEIGHT_DECAY 0"
    sizes = "INPUT.SIZE 16 MODEL.GENERATOR.WIDTH 16 MODEL.DISCRIMINATOR.WIDTH 16 SOLVER.IMS_PER_BATCH 8"
    rest = "SOLVER.MAX_ITER 150 TEST.EVAL_EPOCHS 0 VIS_EPOCHS 0 SOLVER.CHECKPOINT_EPOCHS 60 MODEL.LABEL.KIND colour"
    more = [*speed.split(), *sizes.split(), *rest.split()]
    assert cli("train", *preset("dcgan"), *options(coloured, out, *more)) == 0
    trained = load_trained(out, "model_final.pth")
    assert trained.labels == ["blue", "red"]
    for name in trained.labels:
        drawn = trained.images(trained.latents(32, 3, label=name))
        middle = drawn[:, :, 6:9, 6:10].mean((0, 2, 3))
        other = {"red": 2, "blue": 0}[name]
        assert middle[2 - other] > middle[other] + 0.3, (name, middle)
    # a strip walks between the latents alone: entries of a label would bend its way
    seen = []
    monkeypatch.setattr(type(trained), "images", lambda _, z: seen.append(z) or torch.zeros(len(z), 3, 16, 16))
    strips(trained, 2, 3, seed=1)
    monkeypatch.undo()
    ends = trained.latents(4, 1)
    torch.testing.assert_close(seen[0][:, :-2], walk(ends[:2, :-2], ends[2:, :-2], 3))
    assert torch.equal(seen[0][:, -2:], ends[:2, -2:].repeat_interleave(3, dim=0))
    assert cli("sample", out, "--label", "red", "--count", 2, "--output", tmp_path / "s") == 0
    assert cli("sample", out, "--label", "pink", "--output", tmp_path / "s") == 2
    assert "it knows blue, red" in capsys.readouterr().err
    assert cli("compare", out, "--output", tmp_path / "c") == 0
    page = (tmp_path / "c/report.html").read_text()
    assert "The same latents with each label, from the top blue, red" in page
    # the last iterations again, from a checkpoint on the way: the same crops with the same labels
    unbroken = torch.load(out / "model_final.pth", weights_only=True)["model"]
    (out / "last_checkpoint").write_text("model_0000119.pth")
    assert cli("resume", out) == 0
    assert_same(torch.load(out / "model_final.pth", weights_only=True)["model"], unbroken)
    assert cli("resume", out, "SOLVER.MAX_ITER", 204, "MODEL.LABEL.KIND", "viewpoint") == 2
    assert "MODEL.LABEL" in capsys.readouterr().err


class Painter(nn.Module):
    """Images whose grey is the label's number: 0, 1/20, 2/20, ..."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        return (z[:, 8:].argmax(1) / 10 - 1 + self.weight).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


@pytest.mark.parametrize(
    "count, rows, said",
    [
        (2, 2, "with each label, from the top a, b."),
        (8, 8, "with each label, from the top a, b, c, d, e, f, g, h."),
        (9, 5, "with each label, two labels a row, from the top left a, b, c, d, e, f, g, h, i."),
        (20, 8, "with the 16 commonest of 20 labels, two labels a row, from the top left e, f, g, h, i, j, k, "),
    ],
)
def test_a_sheet_of_many_labels_has_eight_rows_and_says_what_it_shows(count, rows, said):
    names = tuple("abcdefghijklmnopqrst"[:count])
    shares = tuple(2 * (k + 1) / count / (count + 1) for k in range(count))  # the last is the commonest
    opts = ["MODEL.LABEL.NAMES", repr(names), "MODEL.LABEL.SHARES", repr(shares), "MODEL.LATENT.SIZE", "8"]
    trained = Trained(Path(), Path(), load_config("", ["MODEL.DEVICE", "cpu", *opts]), Painter())
    picture, caption = label_sheet(trained, 0)
    assert said in caption and picture.shape == (rows * 6 + 2, 8 * 6 + 2, 3)
    greys = np.round(picture[4::6, 4::6, 0] / 255 * 20).astype(int)  # (rows, 8)
    by_row = np.arange(count)[:, None].repeat(8, 1)
    by_half_row = np.arange(max(0, count - 16), count).repeat(4)
    expected = by_row if count <= 8 else np.pad(by_half_row, (0, -len(by_half_row) % 8), constant_values=20)
    assert (greys == expected.reshape(rows, 8)).all()


def test_what_makes_no_sense_is_a_sentence(cli, coloured, tmp_path, capsys):
    assert cli("train", *options(coloured, tmp_path / "a", "MODEL.LABEL.KIND", "label")) == 2
    assert "The label of all crops is 'car'" in capsys.readouterr().err
    more = ("MODEL.LABEL.KIND", "colour", "MODEL.ENCODER.ENABLED", True)
    assert cli("train", *options(coloured, tmp_path / "a", *more)) == 2
    assert "MODEL.ENCODER knows no labels" in capsys.readouterr().err
