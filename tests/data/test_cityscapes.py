"""Cityscapes' annotations: each damage is named, all at once; decorations change nothing; none breaks the loader."""

import json
import math

import numpy as np
import pytest
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from streets import (
    DECORATIONS,
    HEIGHT,
    INSTANCES,
    WIDTH,
    box,
    edit,
    ids_file,
    ids_of,
    image_file,
    write_streets,
)

from gan_plugin.data.cityscapes import examine_cityscapes, read_polygons
from gan_plugin.data.findings import Findings, Grade
from gan_plugin.errors import UserError


def folders(root, split="train"):
    return root / "cityscapes/leftImg8bit" / split, root / "cityscapes/gtFine" / split


def examined(root, split="train", **options):
    findings = Findings()
    examine_cityscapes(*folders(root, split), findings, **options)
    return findings


def of_object(change):
    """A damage of the second object of a file, a person."""
    return lambda path: edit(path, lambda content: change(content["objects"][1]))


def drawn(polygon):
    return of_object(lambda entry: entry.update(polygon=polygon))


def with_ids(change):
    return lambda path: Image.fromarray(change(np.asarray(Image.open(ids_file(path))).astype(int))).save(ids_file(path))


def stack(ids, channels):
    return np.stack(channels * [ids % 256], -1).astype(np.uint8)


# name: (damage of a polygon file's picture, what the sentence says, whether it names the object)
DAMAGES = {
    "label": (of_object(lambda entry: entry.update(label="unicorn")), "does not define the label 'unicorn'", True),
    "no label": (of_object(lambda entry: entry.pop("label") and None), "no label or no polygon", True),
    "no polygon": (of_object(lambda entry: entry.pop("polygon") and None), "no label or no polygon", True),
    "null": (drawn(None), "is no list of points", True),
    "flat": (drawn([1, 1, 9, 1, 9, 9]), "is no list of points", True),
    "nested": (drawn([box(1, 1, 9, 9)]), "is no list of points", True),
    "3-D": (drawn([[1, 1, 0], [9, 1, 0], [9, 9, 0]]), "no list of points", True),
    "text": (drawn([["1", 1], [9, 1], [9, 9]]), "no finite number", True),
    "truth value": (drawn([[True, 1], [9, 1], [9, 9]]), "no finite number", True),
    "NaN": (drawn([[math.nan, 1], [9, 1], [9, 9]]), "no finite number", True),
    "infinite": (drawn([[math.inf, 1], [9, 1], [9, 9]]), "no finite number", True),
    "far": (drawn([[1e9, 1], [9, 1], [9, 9]]), "farther outside", True),
    "very far": (drawn([[-(10**400), 1], [9, 1], [9, 9]]), "farther outside", True),
    "outside": (drawn(box(WIDTH, 1, 9, 9)), "lies outside", True),
    "two points": (drawn([[1, 1], [9, 9]]), "fewer than three points", True),
    "entry": (lambda path: edit(path, lambda content: content["objects"].insert(1, "car")), "no label or", True),
    "cut off": (lambda path: path.write_text(path.read_text()[:200]), "not valid JSON", False),
    "empty": (lambda path: path.write_bytes(b""), "not valid JSON", False),
    "list": (lambda path: path.write_text("[1, 2]"), "no Cityscapes annotation", False),
    "no objects": (lambda path: edit(path, lambda content: content.pop("objects") and content), "no Cityscapes", False),
    "no size": (lambda path: edit(path, lambda content: content.update(imgWidth=0)), "no Cityscapes annotation", False),
    "gone": (lambda path: path.unlink(), "annotation of an image is missing", False),
    "ids gone": (lambda path: ids_file(path).unlink(), "annotation of an image is missing", False),
    "ids in colour": (with_ids(lambda ids: stack(ids, 3)), "it has 8 bits a value and colours", False),
    "ids with alpha": (with_ids(lambda ids: stack(ids, 4)), "8 bits a value and transparency", False),
    "ids of 8 bits": (with_ids(lambda ids: (ids % 256).astype(np.uint8)), "8 bits a value and grey values", False),
    "ids of one bit": (with_ids(lambda ids: ids > 0), "1 bits a value and grey values", False),
    "ids in a palette": (
        lambda path: Image.open(ids_file(path)).convert("L").convert("P").save(ids_file(path)), "and a palette", False,
    ),
    "ids of another size": (with_ids(lambda ids: ids[:, 1:].astype(np.uint16)), f"{WIDTH - 1}x{HEIGHT}, not", False),
    "ids as JPEG": (
        lambda path: Image.open(ids_file(path)).convert("L").save(ids_file(path), "JPEG"), "it is no PNG file", False,
    ),
    "picture gone": (lambda path: image_file(path).unlink(), "image of an annotation is missing", False),
    "picture halved": (
        lambda path: Image.new("RGB", (WIDTH // 2, HEIGHT // 2)).save(image_file(path)), "annotations say", False,
    ),
    "stray": (lambda path: image_file(path).with_name("Thumbs.db").touch(), "no Cityscapes image", False),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_named_by_file_and_object(tmp_path, name):
    damage, said, names_object = DAMAGES[name]
    path = write_streets(tmp_path)[1]
    assert examined(tmp_path).groups == {}
    damage(path)
    (sentence,) = examined(tmp_path).refused
    assert said in sentence and path.name.split("_gtFine")[0] in sentence or name == "stray"
    assert ("object 1" in sentence) == names_object


def test_all_damages_are_told_together_each_kind_once(tmp_path):
    paths = write_streets(tmp_path, counts=(4, 4))
    for name, path in zip(
        ("label", "two points", "NaN", "cut off", "ids of 8 bits", "picture gone"), paths, strict=False
    ):
        DAMAGES[name][0](path)
    DAMAGES["label"][0](paths[-1])
    findings = examined(tmp_path)
    assert len(findings.refused) == 6
    (labels,) = (sentence for sentence in findings.refused if "unicorn" in sentence)
    assert paths[0].name in labels and paths[-1].name in labels and "1 more" in labels


@pytest.mark.parametrize("name", DECORATIONS)
def test_a_decoration_changes_nothing(tmp_path, name):
    path = write_streets(tmp_path)[1]
    before = loaded(tmp_path)
    DECORATIONS[name](path)
    findings = examined(tmp_path)
    findings.conclude()
    assert all(kind.grade is Grade.REPAIRED for kind in findings.groups)
    assert loaded(tmp_path) == before
    assert [len(record["annotations"]) for record in before] == [INSTANCES] * 3


def loaded(root):
    return sorted(load_cityscapes_instances(*map(str, folders(root))), key=lambda record: record["file_name"])


def test_what_is_left_out_with_skip_is_left_out_by_the_loader(tmp_path):
    first, second, _ = write_streets(tmp_path)
    DAMAGES["far"][0](first)
    DAMAGES["label"][0](second)
    findings = Findings("skip")
    examine_cityscapes(*folders(tmp_path), findings)
    findings.conclude()
    assert len(findings.remarks) == 2
    assert [len(record["annotations"]) for record in loaded(tmp_path)] == [INSTANCES - 1, INSTANCES - 1, INSTANCES]


def test_folders_cities_and_sets_without_objects(tmp_path):
    images, truth = folders(tmp_path)
    assert all(str(folder) in "".join(examined(tmp_path).refused) for folder in (images, truth))
    images.mkdir(parents=True)
    truth.mkdir(parents=True)
    assert "there is no image" in examined(tmp_path).refused[0]
    paths = write_streets(tmp_path, counts=(1, 1))
    write_streets(tmp_path, "val", counts=(1,), start=7)
    # a whole city without images is not used; a single image that is gone is an accident
    image_file(paths[1]).unlink()
    image_file(paths[1]).parent.rmdir()
    assert not examined(tmp_path).refused and "annotations of a city without images" in examined(tmp_path).remarks[0]
    assert not examined(tmp_path, cities=["city0"]).groups
    for path in paths:
        edit(path, lambda content: content.update(objects=content["objects"][:1]))
    assert "no image here has an object" in examined(tmp_path).refused[0]


VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(10**10), 10**10), st.floats(), st.text(max_size=5)),
    *(st.sampled_from(["deleted", "cargroup", "car", "persongroup", "license plate", -1, 0]), st.just([]), st.just({})),
    st.lists(st.lists(st.integers(-50, 120), min_size=2, max_size=2), max_size=5),
)


def places_in(value, place=()):
    """All paths of keys into a JSON value."""
    yield place
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places_in(child, (*place, key))


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_a_polygon_file_holds_is_refused_or_can_do_no_harm(tmp_path, data):
    objects = [
        {"label": "car", "polygon": box(1, 1, 9, 9)},
        {"label": "person", "polygon": box(30, 2, 9, 9), "deleted": 0},
    ]
    content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
    place = data.draw(st.sampled_from([place for place in places_in(content) if place]))
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = data.draw(VALUES)
    path = tmp_path / "a_000000_000019_gtFine_polygons.json"
    path.write_text(json.dumps(content))
    try:
        read = read_polygons(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    assert all(str(path) in problem.sentence for problem in read.problems)
    for entry in read.objects:
        points = np.array(entry["polygon"], float)
        assert points.shape[0] >= 3 and points.shape[1] == 2
        assert (abs(points) <= 2 * max(read.width, read.height)).all()
    # and the official painter takes it
    if read.width * read.height < 1e6:
        ids_of(json.dumps({"imgHeight": read.height, "imgWidth": read.width, "objects": read.objects}))
