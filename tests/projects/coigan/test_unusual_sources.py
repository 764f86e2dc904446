"""Names, tables, pictures and classes that are unusual: read rightly, or refused before anything is made."""

import json

import numpy as np
import pytest
from coigan.data.line_sets import LineSet
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.sources import open_source
from PIL import Image

from gan_plugin.errors import UserError

WIDTH, HEIGHT, TILE = 96, 64, 16
RED = (220, 40, 40)
# x, y, width, height in pixels of the two objects of each picture, by category
BOXES = {1: (4, 5, 20, 12), 2: (60, 40, 30, 20)}


def coco(folder, count=4):
    """Pictures of 96x64 with two red objects each, and the content of their JSON."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = np.random.default_rng(number).integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for category, (x, y, width, height) in BOXES.items():
            pixels[y : y + height, x : x + width] = RED
            ring = [x, y, x + width, y, x + width, y + height, x, y + height]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "segmentation": [ring]}
            annotations.append(entry)
        Image.fromarray(pixels).save(folder / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "other"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder, content):
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def prepared(folder, content, **options):
    options = PrepareOptions(tile=TILE, workers=1, images=str(folder / "images"), **options)
    return prepare(write(folder, content), folder / "out", options)


def test_absolute_file_names_leave_nothing_outside_of_the_output(tmp_path):
    content = coco(tmp_path)
    for number, image in enumerate(content["images"]):
        inside = tmp_path / "images" / image["file_name"]
        elsewhere = tmp_path / "elsewhere" / image["file_name"]
        elsewhere.parent.mkdir(exist_ok=True)
        image["file_name"] = str(inside.rename(elsewhere) if number % 2 else inside)
    before = {path for path in tmp_path.rglob("*")} | {tmp_path / "labels.json", tmp_path / "out"}
    assert prepared(tmp_path, content)["objects"] == [4, 4]
    made = set(tmp_path.rglob("*")) - before
    assert made and all(path.is_relative_to(tmp_path / "out") for path in made)
    names = [record["img"] for record in LineSet(tmp_path / "out/converted").store]
    assert len(names) == 4 and "1.png" in names and all("/" not in name for name in names)


def test_base_has_no_object_of_a_class_that_is_left_out(tmp_path):
    prepared(tmp_path, coco(tmp_path), classes=("box",))
    truth = np.zeros((HEIGHT, WIDTH), bool)
    for x, y, width, height in BOXES.values():
        truth[y : y + height, x : x + width] = True
    tiles = [path.stem.split("_") for path in (tmp_path / "out/base").glob("*.png")]
    corners = {(int(row), int(column)) for _, row, column in tiles}
    expected = {
        (row, column)
        for row in range(0, HEIGHT, TILE)
        for column in range(0, WIDTH, TILE)
        if not truth[row : row + TILE, column : column + TILE].any()
    }
    assert corners == expected and len(expected) > 5
    assert LineSet(tmp_path / "out/train").classes == ("box",)


def turned(folder, content, as_shown):
    """Store the pictures as JPEG with the EXIF orientation 6; annotated as a viewer shows them, or as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for image in content["images"]:
        path = folder / "images" / image["file_name"]
        Image.open(path).save(path.with_suffix(".jpg"), exif=exif, quality=97)
        path.unlink()
        image["file_name"] = path.with_suffix(".jpg").name
        if as_shown:
            image["width"], image["height"] = HEIGHT, WIDTH
    for entry in content["annotations"] if as_shown else ():
        ring = entry["segmentation"][0]
        points = [(HEIGHT - y, x) for x, y in zip(ring[::2], ring[1::2], strict=True)]
        entry["segmentation"] = [[value for point in points for value in point]]


def test_masks_lie_on_the_objects_of_turned_pictures(tmp_path):
    content = coco(tmp_path)
    turned(tmp_path, content, as_shown=True)
    prepared(tmp_path, content)
    lines = LineSet(tmp_path / "out/converted")
    for record in lines.store:
        pixels = lines.image(record)
        assert pixels.shape == (WIDTH, HEIGHT, 3)
        for region in lines.regions(record):
            inside = pixels[region.painted(WIDTH, HEIGHT)].mean(axis=0)
            assert np.abs(inside - RED).max() < 25


def deepened(folder, content):
    for image in content["images"]:
        path = folder / "images" / image["file_name"]
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)


def halved(folder, content):
    for image in content["images"]:
        image["width"], image["height"] = 2 * WIDTH, 2 * HEIGHT


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda *of: turned(*of, as_shown=False), "1.jpg: .*orientation 6: 64x96 pixels, stored as 96x64, not 96x64"),
        (deepened, "1.png: the image has more than 8 bits a value"),
        (halved, r"1.png: .*96x64 pixels, not 192x128.*and 3 more"),
        (lambda folder, content: (folder / "images/3.png").unlink(), "3.png: the image does not exist"),
    ],
)
def test_pictures_that_do_not_fit_are_refused_together_and_nothing_is_made(tmp_path, damage, words):
    content = coco(tmp_path)
    damage(tmp_path, content)
    with pytest.raises(UserError, match=words):
        prepared(tmp_path, content)
    assert not (tmp_path / "out/converted").exists()


def test_pictures_of_other_sources_are_examined_as_well(tmp_path):
    coco(tmp_path, count=2)
    (tmp_path / "masks").mkdir()
    for number in (1, 2):
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / f"masks/{number}.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 4000, np.uint16)).save(tmp_path / "images/2.png")
    with pytest.raises(UserError, match="2.png: the image has more than 8 bits"):
        open_source(tmp_path)


def steel(folder, text, encoding="utf-8"):
    (folder / "train_images").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 20)).save(folder / f"train_images/{number}.jpg")
    (folder / "train.csv").write_bytes(text.encode(encoding))
    source = open_source(folder)
    return [[(r.label, r.box, r.area) for r in source.regions(number, 20, 40)] for number in range(3)]


def test_a_table_says_the_same_whatever_a_spreadsheet_has_made_of_it(tmp_path):
    rows = ["ImageId,ClassId,EncodedPixels", "0.jpg,2,45 6 65 6 205 4", "0.jpg,1,1 3", "2.jpg,4,101 9"]
    text = "\n".join([*rows, ""])
    plain = steel(tmp_path / "plain", text)
    assert [len(objects) for objects in plain] == [3, 0, 1]
    windows = text.replace("\n", "\r\n")
    for name, other, encoding in (
        ("mark", windows, "utf-8-sig"),
        ("utf_16", windows, "utf-16"),
        ("twice", text + "\n".join(rows[1:]), "utf-8"),
        ("twice with other words", text + "0.jpg,2,65 6 45 6\n0.jpg,2,205 2 207 2\n", "utf-8"),
        ("empty lines", text.replace("\n", "\n\n"), "utf-8"),
    ):
        assert steel(tmp_path / name, other, encoding) == plain, name
    with pytest.raises(UserError, match=r"train.csv is no text in UTF-8"):
        steel(tmp_path / "other", text.replace("ImageId", "ImageId,Prüfer"), "latin-1")
