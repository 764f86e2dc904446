"""Changed copies and reports of any data set, against cases worked by hand and naive loops."""

import json

import inpaint
import numpy as np
import pytest
import torch
from coigan.data.convert import Changes, derive, open_any
from coigan.data.images import write_png
from coigan.data.line_sets import LineSet
from coigan.data.objects import ObjectStore, write_objects
from coigan.data.regions import Region
from coigan.visualization.loading import l1_steps
from detectron2.data.datasets.coco import load_coco_json
from pycocotools import mask as coco_mask

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError

HEIGHT, WIDTH = 24, 36


@pytest.fixture
def folders(tmp_path):
    """A folder of images and masks: "a" holds a ring and a dot at odd places, "b" nothing."""
    rng = np.random.default_rng(0)
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 4:12, 6:20] = 255
    masks[0, 6:10, 9:15] = 0
    masks[0, 17, 31] = 255
    for kind in ("images", "masks"):
        (tmp_path / "raw" / kind).mkdir(parents=True)
    for name, mask in zip("ab", masks, strict=True):
        write_png(tmp_path / f"raw/images/{name}.png", rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        write_png(tmp_path / f"raw/masks/{name}.png", mask)
    return tmp_path / "raw"


def _opened(folders, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return open_any(folders, scratch)


def _mask(lines, record):
    height, width = record["size"]
    return np.any([region.painted(height, width) for region in lines.regions(record)], axis=0)


def _dilated(mask, kernel):
    """By loops: on if anything up to kernel // 2 pixels before and less than the rest behind is."""
    result = np.zeros_like(mask)
    before, behind = kernel // 2, kernel - kernel // 2
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            result[y, x] = mask[max(0, y - before) : y + behind, max(0, x - before) : x + behind].any()
    return result


@pytest.mark.parametrize("size", [(HEIGHT // 2, WIDTH // 2), 0.5])
def test_a_smaller_copy_has_means_of_pixels_and_nearest_masks(folders, tmp_path, size):
    lines = _opened(folders, tmp_path)
    counts = derive(lines, tmp_path / "out", Changes(size=size))
    # the dot lies at odd numbers, which the nearest pixel of the half size skips
    assert counts == {"images": 2, "objects": 1, "left_out": 0, "vanished": 1}
    small = LineSet(tmp_path / "out")
    for record, before in zip(small.store, lines.store, strict=True):
        blocks = lines.image(before).astype(float).reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
        assert np.abs(small.image(record) - blocks).max() <= 0.5 + 1e-6
        if before["polygons"]:
            assert (_mask(small, record) == _mask(lines, before)[::2, ::2]).all()
    assert small.params["counts"] == counts and small.params["size"] in ([HEIGHT // 2, WIDTH // 2], 0.5)


@pytest.mark.parametrize(("kernel", "iterations"), [(2, 3), (2, 5), (3, 1)])
def test_masks_grow_by_a_square_and_empty_images_go(folders, tmp_path, kernel, iterations):
    lines = _opened(folders, tmp_path)
    out = tmp_path / "out"
    counts = derive(lines, out, Changes(True, None, kernel, iterations))
    assert counts == {"images": 1, "objects": 2, "left_out": 1, "vanished": 0}
    expected = _mask(lines, lines.store[0])
    for _ in range(iterations):
        expected = _dilated(expected, kernel)
    (record,) = LineSet(out).store
    assert (_mask(LineSet(out), record) == expected).all()
    assert (out / "a.png").read_bytes() == (folders / "images/a.png").read_bytes()
    (read,) = load_coco_json(str(out / "annotations.json"), str(out), "coigan_test_derived")
    theirs = np.any([coco_mask.decode(entry["segmentation"]) for entry in read["annotations"]], axis=0)
    assert (theirs == expected).all()
    with pytest.raises(UserError, match="holds files"):
        derive(lines, out, Changes())


def test_nothing_is_left_behind_where_nothing_is_left(folders, tmp_path):
    for kind in ("images", "masks"):
        (folders / kind / "a.png").unlink()
    lines = _opened(folders, tmp_path)
    with pytest.raises(UserError, match="nothing is left"):
        derive(lines, tmp_path / "out", Changes(only_with_objects=True))
    for wrong in ({"size": (0, 4)}, {"size": 0.0}, {"kernel": 0}, {"iterations": -1}):
        with pytest.raises(UserError, match="or more"):
            Changes(**wrong)
    assert not list(tmp_path.glob("out*"))


def test_the_verbs_take_any_format(folders, tmp_path, capsys):
    """derive a mask folder, prepare what came out, and inspect the COCO JSON."""
    inpaint.main(["derive", str(folders), str(tmp_path / "big"), "--size", "48x72", "--workers", "1"])
    assert "2 images with 2 objects, 0 left out" in capsys.readouterr().out
    annotations = str(tmp_path / "big/annotations.json")
    inpaint.main(["prepare", annotations, str(tmp_path / "ready"), "--tile", "16", "--workers", "1"])
    page, numbers = tmp_path / "page.html", tmp_path / "numbers"
    words = ["--out", str(page), "--numbers", str(numbers), "--workers", "1"]
    inpaint.main(["inspect", annotations, *words])
    report = json.loads((numbers / "brief_report.json").read_text())
    assert (report["images"], report["objects"], report["classes"]["defect"]["objects"]) == (2, 2, 2)
    rows = json.loads((numbers / "raw_report.json").read_text())["rows"]
    assert sorted(row["counts"] for row in rows) == [[0], [2]]
    text = page.read_text()
    assert "2 images, 1 with defects and 1 without; 2 objects." in text and "a.png, chosen for class defect" in text
    with pytest.raises(UserError, match="holds no data set"):
        inpaint.main(["inspect", str(tmp_path), *words])


def test_a_set_of_objects_leaves_its_report_and_has_a_page(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    shapes = [(4, 6), (10, 2), (1, 30)]
    masks = [np.ones(shape, bool) for shape in shapes]
    masks[0][1, 1:3] = False
    objects = [(f"cut{n}", pixels, Region(1, 3, 5, mask)) for n, mask in enumerate(masks)]
    write_objects(tmp_path / "1", objects)
    areas = [22, 20, 30]
    for folder in ("1/reports", "again"):
        if folder == "again":
            inpaint.main(
                ["inspect", str(tmp_path / "1"), "--out", str(tmp_path / "p.html"), "--numbers", str(tmp_path / folder)]
            )
        report = json.loads((tmp_path / folder / "brief_report.json").read_text())
        for key, values in (("height", [4, 10, 1]), ("width", [6, 2, 30]), ("area", areas)):
            own = report[key]
            found = [own[part] for part in ("min", "max", "mean", "std")]
            assert found == pytest.approx([min(values), max(values), np.mean(values), np.std(values)])
        counts, edges = report["area"]["histogram"]
        assert len(counts) == 100 and sum(counts) == 3 and (edges[0], edges[-1]) == (20, 30)
        rows = json.loads((tmp_path / folder / "raw_report.json").read_text())["rows"]
        assert rows[2] == {"key": "cut2", "height": 1, "width": 30, "area": 30}
    page = (tmp_path / "p.html").read_text()
    assert "3 cut-out objects. Height from 1 to 10, mean 5.0" in page and page.count("data:image/png") == 3
    assert "cut0: 6x4, 22 pixels" in page and page.count("data:image/svg") == 2
    assert (read_rgb(tmp_path / "1/data/cut1.png") == pixels[5:15, 3:5]).all()
    assert ObjectStore(tmp_path / "1").label() == 1


def test_the_steps_of_the_smooth_l1_loss_are_those_of_the_thesis():
    """Weights 0 inside and 1 outside: without smoothing the noise under the mask costs nothing (figure 4.16)."""
    union = torch.zeros(1, 20, 30)
    union[0, 5:14, 8:20] = 1
    picture, caption = l1_steps(torch.full((3, 20, 30), 0.5), union, 0)
    # seven pictures with gaps of four
    assert picture.shape == (20, 7 * 30 + 6 * 4, 3)
    steps = [picture[:, place * 34 : place * 34 + 30, 0].astype(float) for place in range(7)]
    mask = union[0].numpy()
    padded = np.pad(mask, 2)
    smooth = np.array([[padded[y : y + 5, x : x + 5].mean() for x in range(30)] for y in range(20)])
    for step, expected in ((3, mask), (4, smooth), (5, 1 - smooth)):
        assert np.abs(steps[step] - 255 * expected).max() < 1.01
    difference, weighted = steps[2], steps[6]
    assert (difference[mask == 0] == 0).all() and (weighted[8:11, 11:17] < 3).all() and weighted.max() > 100
    assert "without smoothing 0." in caption
