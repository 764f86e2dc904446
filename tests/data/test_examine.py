"""The examination of data: whatever is damaged is read as if it were not, or refused in a sentence that names it.

Two pictures with a box (category 1) and a triangle (category 2) each are the sound set; Detectron2's own loader and
both evaluators say what a program makes of a file.
"""

import copy
import json
import logging
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.coco import load_coco_json
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from pycocotools import mask as rle
from support import plugin_cfg

from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.data.coco_json import read_coco
from gan_plugin.data.examine import Demand, Examination, prepare
from gan_plugin.data.findings import Findings
from gan_plugin.errors import UserError
from gan_plugin.evaluation.build import official_evaluator

TRAIN, TEST, OWN = NAMES = ("examined_train", "examined_test", "examined_own")
WIDTH, HEIGHT = 48, 40
GONE = "<gone>"
WRONG = (
    GONE, None, "", "x", "7", "1", [], {}, [1, 2, 3], [[]], -1, 0, 1.5, 3.0, 1e9, -1e9, 10**400, math.nan, math.inf,
    True,     {"size": [HEIGHT, WIDTH], "counts": "garbage"}, {"size": [3, 3], "counts": [9]}, {"counts": [1]},
    {"size": [HEIGHT, WIDTH], "counts": [-5, 5, HEIGHT * WIDTH]}, [[1, 1, 9, 9]], [[1, 1, 9, 9, 9]], [[[1, 1], [9, 1]]],
    [[1, 1, "9", 1, 9, 9]], [[1, 1, 5, 5, 9, 9]], [[900, 900, 990, 900, 990, 990]],
    [1, 1, -4, 5], [300, 1, 5, 5], "1,2,3,4",
)  # fmt: skip
PLACES = (
    *product(["images"], [("id",), ("file_name",), ("width",), ("height",)]),
    *product(["categories"], [("id",), ("name",)]),
    *product(
        ["annotations"], [(key,) for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore")]
    ),
    *product(["annotations"], [("segmentation",), ("segmentation", 0), ("segmentation", 0, 3), ("bbox", 2)]),
    *product(["images", "categories", "annotations"], [()]),
)
# where some of these values are not wrong, but say something else: class 1, a crowd, another point
ANOTHER_CONTENT = (("category_id",), ("iscrowd",), ("segmentation", 0, 3))


def sound_content():
    images, annotations = [], []
    for number in (1, 2):
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        for category, ring in ((1, [4, 5, 20, 5, 20, 30, 4, 30]), (2, [24, 30, 44, 30, 34, 6])):
            x, y = min(ring[::2]), min(ring[1::2])
            box = [x, y, max(ring[::2]) - x, max(ring[1::2]) - y]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box, "area": 300,
                 "iscrowd": 0, "segmentation": [ring]}
            )  # fmt: skip
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "triangle"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def folder(tmp_path):
    """A folder with both pictures; data sets that a test registers are forgotten at its end."""
    for number in (1, 2):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / f"{number}.png")
    yield tmp_path
    for name in NAMES:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def written(folder, content, name="labels.json", **options):
    (folder / name).write_text(json.dumps(content), **options)
    return folder / name


def register(name, file):
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    register_coco_instances(name, {}, str(file), str(file.parent))


def demand(**options):
    return Demand(**{"train": (TRAIN,), "test": (), "classes": 2, **options})


def damaged(entries, path, value):
    """The content of `entries` (a list of objects) with `value` at the path in its second one; GONE removes it."""
    node, last = entries, 1
    for step in path:
        node, last = node[last], step
    if value == GONE and last != "ignore":
        del node[last]
    else:
        node[last] = value


@pytest.mark.parametrize(("part", "path"), PLACES, ids=lambda value: str(value))
def test_any_damage_is_repaired_or_named(folder, part, path):
    """Every wrong value at every place: never an exception of another kind, and nothing is lost in silence."""
    sound = load_coco_json(str(written(folder, sound_content())), str(folder), TRAIN)
    for value in WRONG:
        content = sound_content()
        damaged(content[part], path, copy.deepcopy(value))
        register(TRAIN, written(folder, content))
        try:
            remarks = prepare(demand(), folder / "copies").remarks
        except UserError as error:
            for sentence in str(error).splitlines():
                assert str(folder) in sentence
            first = str(error).splitlines()[0]
            assert any(word in first for word in ("image", "categor", "annotation", ".png")), first
            continue
        records = DatasetCatalog.get(TRAIN)
        if path or value != GONE:
            lost = [len(record["annotations"]) for record in records] != [2, 2]
            assert not lost and (records == sound or path in ANOTHER_CONTENT), (part, path, value, remarks)
        # what the evaluators read
        truth = json.loads(Path(MetadataCatalog.get(TRAIN).json_file).read_text())["annotations"]
        assert len({entry["id"] for entry in truth}) == len(truth) and all(entry["id"] > 0 for entry in truth)
        assert all(entry["area"] >= 0 and entry["iscrowd"] in (0, 1) for entry in truth)


def truth_of(name):
    """What a model that knows the data set by heart predicts, image by image."""
    for record in DatasetCatalog.get(name):
        masks = []
        for one in record["annotations"]:
            mask = one["segmentation"]
            runs = mask if isinstance(mask, dict) else rle.merge(rle.frPyObjects(mask, HEIGHT, WIDTH))
            masks.append(torch.from_numpy(rle.decode(runs).astype(bool)))
        boxes = [BoxMode.convert(one["bbox"], one["bbox_mode"], BoxMode.XYXY_ABS) for one in record["annotations"]]
        classes = torch.tensor([one["category_id"] for one in record["annotations"]])
        yield record, Instances(
            (HEIGHT, WIDTH), pred_boxes=Boxes(boxes), scores=torch.full((len(boxes),), 0.9), pred_classes=classes,
            pred_masks=torch.stack(masks),
        )  # fmt: skip


def average_precision(name, folder, way):
    evaluator = official_evaluator(name, str(folder / "inference"), coco=way)
    evaluator.reset()
    for record, instances in truth_of(name):
        evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()
    return results["segm"]["AP"], results["bbox"]["AP"]


def test_what_is_repaired_evaluators_see_as_well(folder):
    """Everything harmless at once, and the classes in another order: the perfect model has AP 100."""
    content = sound_content()
    register(TRAIN, written(folder, content))
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = number
        entry["category_id"] = 3 - entry["category_id"]
        for key in ("area", "iscrowd", "bbox"):
            del entry[key]
    content["annotations"][1]["segmentation"].append([1, 1, 2, 2])
    content["annotations"][2]["image_id"] = "2"
    content["categories"] = [{"id": "1", "name": "triangle"}, {"id": 2.0, "name": "box"}]
    content["images"][0] |= {"width": float(WIDTH), "height": str(HEIGHT)}
    del content["images"][1]["width"], content["images"][1]["height"]
    register(TEST, written(folder, content, "test.json", encoding="utf-8-sig", newline="\r\n"))
    repairs = prepare(demand(test=(TEST,)), folder / "copies")
    assert len(repairs.remarks) == 10 and len(list((folder / "copies").iterdir())) == 1
    assert [record["annotations"] for record in DatasetCatalog.get(TEST)] == [
        record["annotations"] for record in DatasetCatalog.get(TRAIN)
    ]
    assert MetadataCatalog.get(TEST).thing_classes == ["box", "triangle"]
    for way in ("pycocotools", "faster"):
        assert average_precision(TEST, folder, way) == pytest.approx((100, 100))
    # a second run finds what the first one has written
    stamps = {file: file.stat().st_mtime_ns for file in (folder / "copies").iterdir()}
    assert prepare(demand(test=(TEST,)), folder / "copies").remarks == repairs.remarks
    assert {file: file.stat().st_mtime_ns for file in (folder / "copies").iterdir()} == stamps


def test_skip_leaves_out_and_counts(folder, caplog):
    content = sound_content()
    content["annotations"][1]["segmentation"] = [[1, 1]]
    content["annotations"][2]["category_id"] = 5
    register(TRAIN, written(folder, content))
    with pytest.raises(UserError) as caught:
        prepare(demand(), folder / "copies")
    assert [("annotation 2" in line, "annotation 3" in line) for line in str(caught.value).splitlines()] == [
        (True, False), (False, True),
    ]  # fmt: skip
    remarks = prepare(demand(on_bad="skip"), folder / "copies").remarks
    assert len(remarks) == 2 and all("left out" in remark for remark in remarks)
    assert [len(record["annotations"]) for record in DatasetCatalog.get(TRAIN)] == [1, 1]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not valid JSON"),
        (b'{"images": [', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        (b"[1, 2]", "no COCO JSON.*it is a list"),
        (b"null", "no COCO JSON.*it is null"),
        (b'{"objects": []}', "no COCO JSON"),
        (b'{"images": [], "annotations": [], "categories": []}', "there are no images"),
        (b'{"images": {}, "annotations": null}', 'the list is missing, or is no list.*"images", "annotations"'),
    ],
)
def test_a_file_that_is_no_coco_json_is_named(folder, data, complaint):
    (folder / "labels.json").write_bytes(data)
    register(TRAIN, folder / "labels.json")
    with pytest.raises(UserError, match=f"{folder}/labels.json.*{complaint}"):
        prepare(demand(), folder / "copies")


def test_classes_have_to_be_those_of_the_model_and_of_the_training_set(folder):
    register(TRAIN, written(folder, sound_content()))
    for classes in (1, 80):
        with pytest.raises(UserError, match=f"'{TRAIN}'.*2: box, triangle; MODEL.ROI_HEADS.NUM_CLASSES is {classes}"):
            prepare(demand(classes=classes), folder / "copies")
    content = sound_content()
    content["categories"][0]["name"] = "crate"
    register(TEST, written(folder, content, "test.json"))
    with pytest.raises(UserError, match="test.json.*crate, triangle; box, triangle in .*labels.json"):
        prepare(demand(test=(TEST,)), folder / "copies")


def test_an_evaluation_alone_matches_classes_with_those_that_the_weights_have_learnt(folder):
    """The same objects under swapped ids are the same classes to the model; classes that it has not learnt are none."""
    content = sound_content()
    content["categories"] = [{"id": 1, "name": "triangle"}, {"id": 2, "name": "box"}]
    for entry in content["annotations"]:
        entry["category_id"] = 3 - entry["category_id"]
    register(TEST, written(folder, content))
    alone = {"train": (), "test": (TEST,), "known_classes": ["box", "triangle"]}
    assert len(prepare(demand(**alone), folder / "copies").remarks) == 1
    records = DatasetCatalog.get(TEST)
    assert MetadataCatalog.get(TEST).thing_classes == ["box", "triangle"]
    assert [[one["category_id"] for one in record["annotations"]] for record in records] == [[0, 1], [0, 1]]
    content["categories"][0]["name"] = "crate"
    register(TEST, written(folder, content))
    with pytest.raises(UserError, match="labels.json.*crate, box; box, triangle in the model's training"):
        prepare(demand(**alone), folder / "copies")


def test_a_picture_that_is_missing_or_of_another_size_is_named_together_with_the_rest(folder):
    content = sound_content()
    content["images"][1]["width"] = 50
    content["annotations"][0]["iscrowd"] = 7
    register(TRAIN, written(folder, content))
    (folder / "1.png").unlink()
    with pytest.raises(UserError) as caught:
        prepare(demand(), folder / "copies")
    assert len(str(caught.value).splitlines()) == 3
    for part in ("1.png: the image does not exist", "48x40 pixels, not 50x40", "iscrowd"):
        assert part in str(caught.value)


def test_run_lengths_set_the_mask_format_of_the_config(folder):
    content = sound_content()
    for entry in content["annotations"]:
        runs = rle.merge(rle.frPyObjects(entry["segmentation"], HEIGHT, WIDTH))
        entry["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    register(TRAIN, written(folder, content))
    cfg = plugin_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = (TRAIN,), (), str(folder / "run")
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT, cfg.MODEL.ROI_HEADS.NUM_CLASSES = True, "polygon", 2
    cfg.freeze()
    (remark,) = prepare_datasets(cfg, train=True)
    assert "INPUT.MASK_FORMAT" in remark and cfg.INPUT.MASK_FORMAT == "bitmask" and cfg.is_frozen()
    assert not (folder / "run").exists()


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths_are_decoded_as_pycocotools_does(seed):
    """The box and the area that the reader finds in them, and what a broken string gives."""
    from gan_plugin.data.shapes import examine_mask, run_lengths

    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 60, 2)
    mask = (rng.random(shape) < rng.choice([0.01, 0.3, 0.9])).astype(np.uint8)
    mask[rng.integers(shape[0]), rng.integers(shape[1])] = 1
    runs = rle.encode(np.asfortranarray(mask))
    problems = []
    found = examine_mask(
        {"size": runs["size"], "counts": runs["counts"].decode()}, *shape[::-1].tolist(), problems.append
    )
    _, (left, top, right, bottom), area = found
    assert [left, top, right - left, bottom - top] == rle.toBbox(runs).tolist() and area == mask.sum()
    for cut in range(1, len(runs["counts"])):
        counts = run_lengths(runs["counts"][:cut])
        assert counts is None or counts.sum() != mask.size


class OwnRecords:
    """Standard dicts as a user's own function returns them, damaged by a test."""

    def __init__(self, folder):
        self.records = []
        for number in (1, 2):
            box = {"bbox": [4, 5, 20, 30], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
            box["segmentation"] = [np.array([4, 5, 20, 5, 20, 30, 4, 30.0])]
            path = str(folder / f"{number}.png")
            self.records.append(
                {"file_name": path, "image_id": number, "width": WIDTH, "height": HEIGHT, "annotations": [box]}
            )
        DatasetCatalog.register(OWN, lambda: copy.deepcopy(self.records))
        MetadataCatalog.get(OWN).set(thing_classes=["box"], evaluator_type="coco")

    @property
    def last(self):
        return self.records[1]["annotations"][0]


def test_a_users_own_function_is_examined_and_repaired(folder):
    own = OwnRecords(folder)
    everything = demand(train=(OWN,), test=(OWN,), classes=1)
    assert prepare(everything, folder).remarks == []
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:30, 4:20] = True
    own.last["segmentation"] = mask
    del own.last["bbox"], own.last["bbox_mode"], own.records[0]["width"], own.records[0]["height"]
    assert len(prepare(everything, folder).remarks) == 4
    # the first ones are those of the examination, then it is called anew
    for _ in range(2):
        first, second = DatasetCatalog.get(OWN)
        assert (first["width"], first["height"]) == (WIDTH, HEIGHT)
        box = second["annotations"][0]
        assert BoxMode.convert(box["bbox"], box["bbox_mode"], BoxMode.XYXY_ABS) == [4, 5, 20, 30]
        assert (rle.decode(box["segmentation"]) == mask).all()
    assert average_precision(OWN, folder, "pycocotools") == pytest.approx((100, 100))


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("category_id", 1, r"category_id is not the number of a class \(1; there are 1 classes\)"),
        ("category_id", None, "category_id"),
        ("bbox", [1, 2, 3], "the box is not four"),
        ("bbox", [20, 30, 4, 5], "negative"),
        ("bbox_mode", None, "bbox_mode"),
        ("segmentation", [[4, 5, 20, 5, 20]], "odd number"),
        ("segmentation", [[4, 5, 1e9, 5, 20, 30]], "farther outside"),
        ("segmentation", np.zeros((3, 3), bool), "another size"),
        ("segmentation", "mask", "neither polygons"),
        ("iscrowd", 3, "iscrowd"),
    ],
)
def test_what_a_users_own_function_returns_wrongly_is_named(folder, field, value, complaint):
    own = OwnRecords(folder)
    own.last[field] = value
    with pytest.raises(UserError, match=f"'{OWN}', .*2.png, annotation number 1: .*{complaint}"):
        prepare(demand(train=(OWN,), classes=1), folder)


def test_a_users_function_that_fails_is_named_with_its_line(folder):
    DatasetCatalog.register(OWN, lambda: {}["labels"])
    with pytest.raises(
        UserError, match=rf"'{OWN}': the function .* \(.*test_examine.py, line \d+: KeyError: 'labels'\)"
    ):
        prepare(demand(train=(OWN,)), folder)


def test_boxes_do_without_masks(folder):
    content = sound_content()
    for entry in content["annotations"]:
        del entry["segmentation"]
    register(TRAIN, written(folder, content))
    with pytest.raises(UserError, match="no annotation has a mask.*MODEL.MASK_ON False"):
        prepare(demand(), folder / "copies")
    assert prepare(demand(masks=False), folder / "copies").remarks == []


def test_pictures_of_a_subset_are_looked_at_alone(folder):
    content = sound_content()
    register(TRAIN, written(folder, content))
    sizes = {"a": 1, "b": 1}
    for suffix in sizes:
        examination = Examination(demand(train=(f"{TRAIN}_{suffix}",), sizes=sizes))
        assert len(examination.pictures) == 1 and not examination.findings.groups
    DatasetCatalog.pop(f"{TRAIN}_a", None)


def test_the_reader_finds_the_folder_and_tells_of_one_file(folder, caplog):
    findings = Findings()
    file = read_coco(written(folder, sound_content()), None, findings)
    assert not findings.groups and not file.changed and file.classes == ["box", "triangle"]
    assert [path for path, *_ in file.pictures()] == [folder / "1.png", folder / "2.png"]
    assert [len(own) for own in file.annotations_of_images().values()] == [2, 2]
    with caplog.at_level(logging.WARNING):
        findings.conclude()
    assert caplog.messages == []
