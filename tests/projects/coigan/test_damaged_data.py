"""Whatever is wrong with a data set ends with a sentence that names the file and the line, and loses nothing."""

import json
import resource
import shutil
import zlib
from pathlib import Path

import inpaint
import numpy as np
import pytest
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet, LineStore, LineWriter, write_line_set
from coigan.data.objects import ObjectStore
from coigan.data.placer import Placer
from coigan.data.prepare import PrepareOptions, prepare
from coigan.data.regions import Region, from_coco_rle, to_coco_rle, to_record
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gan_plugin.errors import UserError, run_command_line

OPTIONS = PrepareOptions(tile=32, workers=1)
SIDE = 40


@pytest.fixture
def folders(tmp_path):
    """Four images with a square each, and their masks."""
    rng = np.random.default_rng(0)
    root = tmp_path / "raw"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for name in "abcd":
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[1:4, 2:5] = 255
        write_png(root / f"images/{name}.png", rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        write_png(root / f"masks/{name}.png", mask)
    return root


def _square():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[1:4, 2:5] = True
    return mask


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)), st.data())
def test_run_lengths_that_end_too_early_are_refused(mask, data):
    """pycocotools takes them and leaves the rest of the mask to whatever was in memory."""
    encoded = to_coco_rle(mask)
    assert (from_coco_rle(encoded) == mask).all()
    counts = encoded["counts"]
    shorter = counts[: data.draw(st.integers(0, len(counts) - 1))]
    with pytest.raises(ValueError, match="do not cover"):
        from_coco_rle({**encoded, "counts": shorter})
    for height, width in ((mask.shape[0] + 1, mask.shape[1]), (mask.shape[0], mask.shape[1] + 1)):
        with pytest.raises(ValueError, match="do not cover"):
            from_coco_rle({"size": [height, width], "counts": counts})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("polygons"), "KeyError: 'polygons'"),
        (lambda record: record["polygons"][0].update(label="7"), "the label 7 of 1 classes"),
        (lambda record: record["polygons"][0].update(label="x"), "invalid literal"),
        (lambda record: record["polygons"][0]["rle"].update(counts="0"), "do not cover"),
        (lambda record: record.update(size=[SIDE]), "not enough values"),
        (lambda record: record.update(size=[SIDE, SIDE + 1]), "in an image of"),
    ],
)
def test_a_damaged_record_is_named_by_its_line(tmp_path, change, words):
    records = [
        {"img": f"{n}.png", "size": [SIDE, SIDE], "polygons": [to_record(Region(0, 0, 0, _square()), SIDE, SIDE)]}
        for n in range(3)
    ]
    change(records[1])
    write_line_set(tmp_path, records, ("defect",), ".")
    lines = LineSet(tmp_path)
    assert len(lines.regions(lines.store[0])) == 1
    with pytest.raises(UserError, match=rf"dataset.jsonl, line 2: the record of 1.png is damaged .*{words}"):
        lines.regions(lines.store[1])


def test_lines_that_are_no_records_are_named(tmp_path):
    with LineWriter(tmp_path) as writer:
        for number in range(3):
            writer.add({"key": "abcd", "n": number})
    path = tmp_path / "dataset.jsonl"
    content = path.read_bytes()
    for wrong, words in ((b'{"key":"abcd","n":1]', "line 2: .*delimiter"), (b'["key", "abcd", "n"]', "line 2 is no")):
        path.write_bytes(content.replace(b'{"key":"abcd","n":1}', wrong))
        assert LineStore(tmp_path)[2]["n"] == 2
        with pytest.raises(UserError, match=f"dataset.jsonl, {words}"):
            LineStore(tmp_path)[1]
    path.write_bytes(content)
    with pytest.raises(UserError, match="dataset.jsonl, line 1: 'size'"):
        ObjectStore(tmp_path)[0]


def _coco(folders):
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.png", "width": SIDE, "height": SIDE} for n, name in enumerate("abcd", 1)
        ],
        "categories": [{"id": 5, "name": "crack"}],
        "annotations": [
            {"id": 70 + n, "image_id": n, "category_id": 5, "segmentation": to_coco_rle(_square())} for n in (1, 2, 3)
        ],
    }
    return content, folders / "images/instances.json"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one.pop("segmentation"), "annotation 72: there is no mask"),
        (lambda one: one.update(category_id=6), r"annotation 72: the category_id is that of no category \(6\)"),
        (lambda one: one.update(image_id=9), r"annotation 72: the image_id is that of no image \(9\)"),
        (lambda one: one.update(segmentation=[]), "annotation 72: there is no mask"),
        (lambda one: one.update(segmentation=[[1, 2, 3, 4]]), "annotation 72: .*three points"),
        (
            lambda one: one.update(segmentation={"size": [SIDE, SIDE], "counts": [9, 4]}),
            "annotation 72: the run lengths cannot be decoded to that size",
        ),
        (
            lambda one: one.update(segmentation={"size": [9, 9], "counts": [9, 72]}),
            "annotation 72: the run lengths are of another size .*9x9 for",
        ),
        (
            lambda one: one["segmentation"].update(counts="0"),
            "annotation 72: the run lengths cannot be decoded to that size",
        ),
    ],
)
def test_a_bad_annotation_of_coco_is_named(folders, tmp_path, change, words):
    content, path = _coco(folders)
    change(content["annotations"][1])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"instances.json, {words}"):
        prepare(path, tmp_path / "out", OPTIONS)


def test_missing_images_and_files_that_are_none(folders, tmp_path):
    content, path = _coco(folders)
    path.write_text("{}")
    with pytest.raises(UserError, match="instances.json: this is no COCO JSON"):
        prepare(path, tmp_path / "out", OPTIONS)
    path.write_text(json.dumps(content))
    (folders / "images/c.png").unlink()
    with pytest.raises(UserError, match="c.png: the image does not exist"):
        prepare(path, tmp_path / "out", OPTIONS)
    path.write_text(json.dumps({**content, "images": [], "annotations": []}))
    with pytest.raises(UserError, match='"images": there are no images'):
        prepare(path, tmp_path / "out", OPTIONS)


def test_masks_that_do_not_fit_and_classes_that_are_none(folders, tmp_path):
    with pytest.raises(UserError, match="no class 'crack'; choose from defect"):
        prepare(folders, tmp_path / "out", PrepareOptions(tile=32, workers=1, classes=("crack",)))
    write_png(folders / "masks/b.png", np.zeros((SIDE, SIDE - 1), np.uint8))
    with pytest.raises(UserError, match="The mask .*b.png is 39x40 pixels but its image 40x40"):
        prepare(folders, tmp_path / "out", OPTIONS)
    (folders / "masks/b.png").rename(folders / "masks/bb.png")
    with pytest.raises(UserError, match="masks/bb.png: the file of objects has no picture"):
        prepare(folders, tmp_path / "out", OPTIONS)
    (folders / "masks/bb.png").unlink()
    shutil.copy(folders / "images/a.png", folders / "images/a.bmp")
    shutil.copy(folders / "masks/a.png", folders / "masks/b.png")
    with pytest.raises(UserError, match="Two images would be called a"):
        prepare(folders, tmp_path / "out", OPTIONS)
    for path in (folders / "images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="the file of objects has no picture"):
        prepare(folders, tmp_path / "out", OPTIONS)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("ImageId,Class,EncodedPixels\n", "train.csv, line 1: the column ClassId is missing"),
        ("ImageId,ClassId,EncodedPixels\na.png\n", "train.csv, line 2: ClassId None"),
        ("ImageId,ClassId,EncodedPixels\na.png,1,1 2\nb.png,1,x 2\n", "train.csv, line 3: .*invalid"),
        ("ImageId,ClassId,EncodedPixels\na.png,1,1600 2\n", "train.csv, line 2: a run leaves"),
    ],
)
def test_a_bad_table_is_named_by_its_line(folders, tmp_path, table, words):
    (folders / "images").rename(folders / "train_images")
    shutil.rmtree(folders / "masks")
    (folders / "train.csv").write_text(table)
    with pytest.raises(UserError, match=words):
        prepare(folders, tmp_path / "out", OPTIONS)


def test_a_set_without_objects_is_not_trained_on(folders, tmp_path):
    for path in (folders / "masks").iterdir():
        write_png(path, np.zeros((SIDE, SIDE), np.uint8))
    with pytest.raises(UserError, match="The class defect has no object in .*raw; leave it out"):
        prepare(folders, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="There is no object to place"):
        Placer([], 32)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_preparation_and_space_lets_it_go_on(folders, tmp_path, workers, capsys):
    out = tmp_path / "out"
    words = ["prepare", str(folders), str(out), "--tile", "32", "--workers", str(workers)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # a tile of noise has over 3000 bytes; all files before have fewer
    resource.setrlimit(resource.RLIMIT_FSIZE, (2900, before[1]))
    try:
        assert run_command_line(lambda: inpaint.main(words)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "out cannot be written (File too large); free some disk space" in capsys.readouterr().err
    assert not list(out.glob("*.part")) and not (out / "prepared.json").exists() and not (out / "base").exists()
    assert (out / "objects/0/index").is_file()
    content = prepare(folders, out, PrepareOptions(tile=32, workers=1))
    assert content["stages"]["objects"] == "kept" and content["stages"]["base"] == "not there"
    assert len(LineSet(out / "train")) == content["tiles"]["train"] == 8


def test_the_checksum_is_of_the_lines(tmp_path):
    with LineWriter(tmp_path) as writer:
        writer.add({"key": 1})
    assert LineStore(tmp_path).checksum == zlib.crc32(Path(tmp_path / "dataset.jsonl").read_bytes())
