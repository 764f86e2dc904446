"""Small Cityscapes sets with known objects, and every way in which other tools damage or decorate them."""

import json

import numpy as np
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from PIL import Image

WIDTH, HEIGHT = 96, 64


def box(left, top, width, height):
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


# of each picture, moved to the right by its number; nothing overlaps
OBJECTS = [
    ("road", box(0, 56, 95, 7)),
    ("person", box(4, 8, 16, 30)),
    ("person", box(30, 10, 14, 28)),
    ("car", box(56, 20, 30, 22)),
]
INSTANCES = 3


def write_streets(root, split="train", counts=(2, 1), start=0):
    """Write cityscapes/ below `root` with a city for each of `counts`; returns the polygon files."""
    written = []
    for city, count in enumerate(counts):
        for number in range(count):
            stem = f"city{start + city}_{number:06d}_000019"
            image, truth = (
                root / "cityscapes" / part / split / f"city{start + city}" / stem for part in ("leftImg8bit", "gtFine")
            )
            for path in (image, truth):
                path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(noise).save(f"{image}_leftImg8bit.png")
            objects = [
                {"label": label, "polygon": [[x + number, y] for x, y in polygon] if label != "road" else polygon}
                for label, polygon in OBJECTS
            ]
            content = json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects})
            path = truth.parent / f"{stem}_gtFine_polygons.json"
            path.write_text(content)
            save_ids(ids_of(content), path)
            Image.new("L", (WIDTH, HEIGHT)).save(truth.parent / f"{stem}_gtFine_labelIds.png")
            written.append(path)
    return written


def ids_of(content):
    """(H, W) uint16: the instance ids as cityscapesScripts paints them from the text of a polygon file."""
    annotation = Annotation()
    annotation.fromJsonText(content)
    return np.asarray(createInstanceImage(annotation, "ids")).astype(np.uint16)


def ids_file(polygons):
    return polygons.with_name(polygons.name.replace("polygons.json", "instanceIds.png"))


def image_file(polygons):
    name = polygons.name.replace("_gtFine_polygons.json", "_leftImg8bit.png")
    return polygons.parents[3] / "leftImg8bit" / polygons.parents[1].name / polygons.parent.name / name


def save_ids(ids, polygons):
    Image.fromarray(ids).save(ids_file(polygons))


def edit(polygons, change):
    """Let `change` edit the content of a polygon file, or return another one."""
    content = json.loads(polygons.read_text())
    polygons.write_text(json.dumps(change(content) or content))


# what says nothing about the content
DECORATIONS = {
    "deleted: 0": lambda path: edit(
        path, lambda content: [entry.update(deleted=0) for entry in content["objects"]] and {}
    ),
    "deleted: false": lambda path: edit(path, lambda content: content["objects"][2].update(deleted=False)),
    "deleted: null": lambda path: edit(path, lambda content: content["objects"][3].update(deleted=None)),
    "a deleted object": lambda path: edit(
        path, lambda content: content["objects"].append({"label": "?", "polygon": None, "deleted": 1})
    ),
    "byte-order mark": lambda path: path.write_text(path.read_text(), encoding="utf-8-sig"),
    "UTF-16": lambda path: path.write_text(path.read_text(), encoding="utf-16"),
    "Windows line ends": lambda path: path.write_bytes(b"\r\n" + path.read_bytes().replace(b",", b",\r\n")),
    "decimal sizes": lambda path: edit(
        path, lambda content: content.update(imgHeight=float(HEIGHT), imgWidth=WIDTH * 1.0)
    ),
    "sizes as text": lambda path: edit(path, lambda content: content.update(imgHeight=str(HEIGHT))),
    "an empty polygon": lambda path: edit(
        path, lambda content: content["objects"].append({"label": "car", "polygon": []})
    ),
}
