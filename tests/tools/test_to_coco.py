"""to_coco.py: every form gives back the pixels that were annotated, and all mistakes are told at once."""

import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage
from support import exit_code
from to_coco import main

from gan_plugin.data.coco_json import load_coco

HEIGHT, WIDTH = 36, 44
# how a label image of so large numbers may be saved
SAVED = {
    "L.png": lambda labels: Image.fromarray(labels.astype(np.uint8)),
    "P.png": lambda labels: Image.fromarray(labels.astype(np.uint8)).convert("P"),
    "I16.png": lambda labels: Image.fromarray((labels * 100).astype(np.uint16)),
    "I32.tif": lambda labels: Image.fromarray((labels * 100_000).astype(np.int32)),
    "F.tiff": lambda labels: Image.fromarray(labels.astype(np.float32)),
}


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(path)


def save(mask, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def converted(*arguments):
    """Name of a picture -> its classes and masks, as pycocotools reads what the command has written."""
    out = next(argument for argument in arguments if str(argument).endswith(".json"))
    assert exit_code(main, *arguments, "--workers", 1) == 0
    root = next(a for a in arguments if isinstance(a, Path))
    # what a training would say of it
    assert not load_coco(out, root).changed
    coco = COCO(out)
    return {
        image["file_name"]: [
            (coco.cats[one["category_id"]]["name"], coco.annToMask(one)) for one in coco.imgToAnns[image["id"]]
        ]
        for image in coco.imgs.values()
    }


def assert_masks(found, expected, category="object"):
    assert [name for name, _ in found] == [category] * len(expected)
    for (_, mask), other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1), objects=st.integers(1, 9), rle=st.booleans(), form=st.sampled_from(sorted(SAVED))
)
def test_pixels_come_back(tmp_path_factory, seed, objects, rle, form):
    """Objects with holes, in several parts and at the border, in all forms that hold pixels."""
    root = tmp_path_factory.mktemp("pixels")
    cells = np.random.default_rng(seed).integers(0, objects + 1, (9, 11))
    cells.flat[:objects] = np.arange(objects) + 1
    labels = np.kron(cells, np.ones((4, 4), int))
    masks = [labels == number + 1 for number in range(objects)]
    switches = ["--rle"] if rle else []

    picture(root / "labels/images/a.jpg")
    (root / "labels/truth").mkdir()
    SAVED[form](labels).save(root / f"labels/truth/a_mask.{form.partition('.')[2]}")
    found = converted("labels", root / "labels/images", root / "labels/truth", root / "labels.json", *switches)
    assert_masks(found["a.jpg"], masks)
    SAVED[form](labels).save(root / f"labels/images/a.{form.partition('.')[2]}")
    assert_masks(converted("labels", root / "labels/images", root / "labels/images", root / "one.json")["a.jpg"], masks)

    for number, mask in enumerate(masks):
        save(mask, root / f"bowl/a/masks/{number}.png")
        save(mask, root / f"named/masks/a/{number}.png")
    picture(root / "bowl/a/images/a.png")
    picture(root / "named/images/a.png")
    for name, file in (("bowl", "a/images/a.png"), ("named", "images/a.png")):
        found = converted("masks", root / name, root / f"{name}.json", "--category", "cell", *switches)
        assert_masks(found[file], masks, "cell")

    picture(root / "classes/crack/deep/a.jpg")
    picture(root / "classes/free/a.png")
    save(masks[0], root / "classes/crack/deep/a.png")
    save(masks[0] & False, root / "classes/free/a_mask.png")
    parts, number = ndimage.label(masks[0], np.ones((3, 3)))
    found = converted("folders", root / "classes", root / "classes.json", *switches)
    assert {name: len(objects) for name, objects in found.items()} == {"crack/deep/a.jpg": number, "free/a.png": 0}
    assert {mask.tobytes() for _, mask in found["crack/deep/a.jpg"]} == {
        (parts == index + 1).astype(np.uint8).tobytes() for index in range(number)
    }
    found = converted("folders", root / "classes", root / "classes.json", "--whole", *switches)
    assert_masks(found["crack/deep/a.jpg"], [masks[0]], "crack")


def labelme(path, shapes, **changed):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"imagePath": f"{path.stem}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes} | changed
    path.write_text(json.dumps(content))


def drawn(mask):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("switches", [[], ["--rle"]])
def test_shapes_of_labelme(tmp_path, switches):
    picture(tmp_path / "part/a.png")
    hook = np.ones((6, 5), bool)
    hook[1:, 2:] = False
    shapes = [
        {"label": "box", "shape_type": "rectangle", "points": [[12, 9], [2, 3]]},
        {"label": "disc", "shape_type": "circle", "points": [[30, 15], [30, 25]]},
        {"label": "hook", "shape_type": "mask", "points": [[20, 28], [24, 33]], "mask": drawn(hook)},
        {"label": "pair", "group_id": 1, "points": [[1, 20], [5, 20], [5, 24], [1, 24]]},
        {"label": "pair", "group_id": 1, "points": [[3, 22], [9, 22], [9, 30], [3, 30]]},
        {"label": "pair", "group_id": 2, "points": [[40, 1], [44, 1], [44, 5]]},
    ]
    labelme(tmp_path / "part/a.json", shapes, imagePath="a.png")
    found = converted("labelme", tmp_path, tmp_path / "out.json", *switches)["part/a.png"]
    assert [name for name, _ in found] == ["box", "disc", "hook", "pair", "pair"]
    expected = np.zeros((5, HEIGHT, WIDTH), bool)
    expected[0, 3:9, 2:12] = expected[3, 20:24, 1:5] = expected[3, 22:30, 3:9] = True
    expected[2, 28:34, 20:25] = hook
    for number in (0, 2, 3):
        np.testing.assert_array_equal(found[number][1], expected[number])
    assert found[1][1].sum() == pytest.approx(math.pi * 100, rel=0.03)
    assert 6 <= found[4][1].sum() <= 10


def told(capsys, *arguments):
    """What the command says as it refuses."""
    assert exit_code(main, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


def test_all_mistakes_are_told_and_left_out_on_request(tmp_path, capsys):
    whole, root = np.ones((HEIGHT, WIDTH), bool), tmp_path / "tiles"
    for name in ("sound", "broken", "small", "grey", "lonely", "unread"):
        picture(root / f"crack/{name}.jpg")
        if name != "lonely":
            save(whole, root / f"crack/{name}.png")
    save(whole, root / "crack/nobody_mask.png")
    (root / "crack/broken.png").write_bytes(b"no picture")
    (root / "crack/unread.jpg").write_bytes(b"no picture")
    save(whole[:5], root / "crack/small.png")
    Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)).save(root / "crack/grey.png")
    out = tmp_path / "out.json"
    error = told(capsys, "folders", root, out)
    for name in ("broken.png", "small.png", "grey.png", "lonely.jpg", "nobody_mask.png", "unread.jpg"):
        assert str(root / "crack" / name) in error, name
    assert not out.exists()
    (root / "crack/unread.jpg").unlink()
    (root / "crack/unread.png").unlink()
    assert list(converted("folders", root, out, "--skip")) == ["crack/sound.jpg"]
    assert capsys.readouterr().out.count("because of --skip") == 4


def test_mistakes_in_labelme(tmp_path, capsys):
    square = [[1, 1], [9, 1], [9, 9], [1, 9]]
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    bad = [
        {"label": "x", "shape_type": "line", "points": [[1, 1], [9, 9]]},
        {"label": "", "points": square},
        {"label": "x", "points": square[:2]},
        {"label": "x", "points": [[1, math.nan], *square[1:]]},
        {"label": "x", "points": [[x + 500, y] for x, y in square]},
        {"label": "x", "shape_type": "circle", "points": square},
        {"label": "x", "shape_type": "mask", "points": square[:2], "mask": "no picture"},
        "no shape",
    ]
    labelme(tmp_path / "a.json", [*bad, {"label": "x", "points": square}])
    labelme(tmp_path / "b.json", [], imageWidth=7)
    labelme(tmp_path / "gone.json", [])
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"images": []}')
    out = tmp_path / "out.json"
    error = told(capsys, "labelme", tmp_path, out)
    for part in ("shape 1: ", "b.png", "gone.png", "broken.json", "other.json"):
        assert part in error, part
    assert {number for number in range(1, 9) if f"shape {number}" in error} == set(range(1, 9))
    for name in ("b", "gone", "broken"):
        (tmp_path / f"{name}.json").unlink()
    ((name, mask),) = converted("labelme", tmp_path, out, "--skip")["a.png"]
    assert name == "x" and mask.sum() == 64
    assert exit_code(main, "labelme", tmp_path, out, "--skip", "--classes", "y", "x") == 0
    assert [one["name"] for one in json.loads(out.read_text())["categories"]] == ["y", "x"]


@pytest.mark.parametrize(
    ("form", "make", "words"),
    [
        ("folders", lambda root: picture(root / "a.png"), "no picture, below folders"),
        ("folders", lambda root: [picture(root / f"c/a.{end}") for end in ("png", "tif")], "not clear which"),
        ("masks", lambda root: [picture(root / f"a/images/{name}.png") for name in "ab"], "several pictures"),
        ("masks", lambda root: picture(root / "images/a.png"), "no object in any picture"),
        ("labelme", lambda root: picture(root / "a.png"), "no JSON file"),
    ],
)
def test_folders_of_another_form(tmp_path, capsys, form, make, words):
    make(tmp_path)
    assert words in told(capsys, form, tmp_path, tmp_path / "out.json")
    assert "does not exist" in told(capsys, form, tmp_path / "elsewhere", tmp_path / "out.json")
    assert "does not exist" in told(capsys, form, tmp_path, tmp_path / "elsewhere/out.json")
