"""The reader of crops: squares, colours, splits, and what is wrong with a folder."""

import json

import numpy as np
import pytest
import torch
from car_gan.crops.dataset import CropDataset
from car_gan.pictures import GREEN, resize
from PIL import Image

from gan_plugin.errors import UserError


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Twelve RGB pictures, 8 high and 16 wide, of random colours."""
    rng = np.random.default_rng(0)
    for number in range(12):
        save(tmp_path / f"crops/{number:02}.png", rng.integers(0, 256, (8, 16, 3)))
    return tmp_path / "crops"


def test_a_crop_is_centred_on_green_in_unit_range(folder):
    save(folder / "00.png", np.zeros((8, 16, 3)))
    crop = CropDataset(folder, 16, split="all")[0]
    assert crop.shape == (3, 16, 16) and crop.dtype == torch.float32
    green = torch.tensor(GREEN) / 127.5 - 1
    assert torch.equal(crop[:, 4:12], -torch.ones(3, 8, 16))
    assert torch.equal(crop[:, :4], green[:, None, None].expand(3, 4, 16))
    assert torch.equal(crop[:, 12:], crop[:, :4])


def test_reducing_averages_what_it_leaves_out():
    """A chequerboard of single pixels becomes its mean, which nearest or plain bilinear sampling would miss."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255)[..., None].astype(np.uint8)
    assert np.abs(resize(board, (8, 8)).astype(int) - 127.5).max() < 4


def test_colours_and_alpha_are_filtered_alike(tmp_path):
    """After resizing, a picture on green is still alpha * car + (1 - alpha) * green, to the rounding of both."""
    car, mask = np.array((200, 30, 90)), np.zeros((40, 40), bool)
    mask[7:29, 11:38] = True
    rgba = np.empty((40, 40, 4), np.uint8)
    rgba[..., :3] = np.where(mask[..., None], car, GREEN)
    rgba[..., 3] = mask * 255
    save(tmp_path / "crop.png", rgba)
    item = CropDataset(tmp_path, 16, channels=4, split="all").pixels(0).permute(1, 2, 0).numpy().astype(float)
    share = item[..., 3:] / 255
    assert 0 < share.mean() < 1 and ((share > 0) & (share < 1)).any()
    expected = share * car + (1 - share) * np.array(GREEN)
    assert np.abs(item[..., :3] - expected).max() < 2


@pytest.mark.parametrize("channels", [3, 4])
def test_half_transparent_pictures_lie_over_green(tmp_path, channels):
    save(tmp_path / "crop.png", np.full((8, 8, 4), (101, 55, 1, 128)))
    item = CropDataset(tmp_path, 8, channels=channels, split="all").pixels(0)[:, 3, 3].tolist()
    # 128/255 of the picture and the rest green, by hand
    assert item == [76, 155, 26, 128][:channels]


def test_flips_are_mirrors_from_the_global_random_state(folder):
    plain, flipped = CropDataset(folder, 16, split="all"), CropDataset(folder, 16, flip=True, split="all")
    torch.manual_seed(3)
    first = [flipped[0] for _ in range(20)]
    mirrored = [torch.equal(item, plain[0].flip(-1)) for item in first]
    assert all(torch.equal(item, plain[0]) for item, is_mirror in zip(first, mirrored, strict=True) if not is_mirror)
    assert 3 < sum(mirrored) < 17
    torch.manual_seed(3)
    assert all(torch.equal(flipped[0], item) for item in first)


def test_source_images_are_held_out_as_wholes(folder):
    lines = [{"file": f"{n:02}.png", "source_image": f"image{n // 3}"} for n in range(12)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = {
        name: {r["file"] for r in CropDataset(folder, 8, split=name, held_out=0.25).records}
        for name in ("train", "held_out", "all")
    }
    assert parts["train"] | parts["held_out"] == parts["all"] and len(parts["all"]) == 12
    # a quarter of four images of three cars each
    assert len(parts["held_out"]) == 3 and len({int(name[:2]) // 3 for name in parts["held_out"]}) == 1
    choices = {
        tuple(r["file"] for r in CropDataset(folder, 8, split="held_out", seed=s, held_out=0.25).records)
        for s in range(9)
    }
    assert len(choices) > 1


def test_the_fingerprint_follows_the_content(folder):
    before = CropDataset(folder, 8, split="all").fingerprint()
    assert CropDataset(folder, 8, split="all").fingerprint() == before
    assert CropDataset(folder, 16, split="all").fingerprint() != before
    save(folder / "03.png", np.zeros((8, 16, 3)))
    assert CropDataset(folder, 8, split="all").fingerprint() != before


def broken(folder):
    (folder / "05.png").write_bytes((folder / "05.png").read_bytes()[:60])


@pytest.mark.parametrize(
    "damage, options, sentence",
    [
        (broken, {}, r"05\.png: the image cannot be decoded"),
        (lambda f: Image.fromarray(np.ones((8, 8), np.uint16)).save(f / "05.png"), {}, r"05\.png: .*more than 8 bits"),
        (lambda f: None, {"channels": 4}, "has 3 channels where 4 are asked for; build the crops with MODE rgba_crop"),
        (lambda f: None, {"channels": 1}, "3 channels .RGB. or 4 .RGBA., not 1"),
        (lambda f: None, {"size": 4}, "The crop size is 4; set it to a whole number, 8 or more"),
        (
            lambda f: None,
            {"split": "test"},
            "The split is 'test', which is unknown; .* ones are 'train', 'held_out', 'all'",
        ),
        (lambda f: None, {"split": "held_out", "held_out": 0}, "The split 'held_out' of .* has no crops .12 in all"),
        (lambda f: (f / "manifest.jsonl").write_text('{"file": 1'), {}, "is no manifest of crops"),
        (lambda f: [path.unlink() for path in f.iterdir()], {}, "holds no crops"),
    ],
)
def test_what_is_wrong_is_a_sentence(folder, damage, options, sentence):
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        CropDataset(folder, **{"size": 8, "split": "all", **options})
