"""Labels of synthetic objects against what a segmenter sees: a case by hand, and a set with objects nobody painted."""

import json
from pathlib import Path

import inpaint
import numpy as np
import pytest
import torch
from coigan.audit import MARGIN, agreements, audit_set, read_set, summarise, weak_images, write_passed
from coigan.augmentation import Source, write_augmented
from coigan.data.images import write_png
from coigan.segmentation.networks import build_segmenter
from coigan.segmentation.training import SegmentOptions, read_segmenter, write_segmenter
from detectron2.data.datasets.coco import load_coco_json

from gan_plugin.data.pictures import read_rgb
from gan_plugin.errors import UserError


def rectangle(top, bottom, left, right, shape=(40, 60)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_agreement_of_two_neighbours_by_hand():
    one, two = rectangle(10, 20, 10, 20), rectangle(10, 20, 22, 32)
    found = rectangle(10, 20, 10, 24) | rectangle(35, 39, 50, 59)
    (iou_one, recall_one), (iou_two, recall_two) = agreements(found, [one, two])
    # two columns between both count for each; what is under the other label does not, nor what is far away
    assert (iou_one, recall_one) == (100 / 120, 1.0)
    assert (iou_two, recall_two) == (20 / (100 + 20), 0.2)
    far = rectangle(10, 20, 20 + MARGIN + 1, 50)
    assert agreements(found | far, [one]) == [(100 / 140, 1.0)]
    assert agreements(np.zeros((40, 60), bool), [one]) == [(0.0, 0.0)]


@pytest.fixture
def painted(tmp_path):
    """A set of four dark squares on white; the one in the second image was not painted."""

    class Squares:
        def __init__(self):
            self.number = 0

        def place(self, rng):
            self.number += 1
            mask = rectangle(8, 24, 8 + 4 * self.number, 24 + 4 * self.number, (64, 64))
            return type("Placed", (), {"masks": mask[None], "canvases": None, "objects": [(0, mask, "key")]})

    def paint(image, placement, seed):
        paint.calls += 1
        return np.where(placement.masks[0][..., None] & (paint.calls != 2), 0, image).astype(np.uint8)

    paint.calls = 0
    base = tmp_path / "white.png"
    write_png(base, np.full((64, 64, 3), 255, np.uint8))
    write_augmented(tmp_path / "set", Source([base], Squares(), ("dent",)), paint, 4, 0, {"method": "gan"})
    return tmp_path / "set"


def test_an_object_that_nobody_painted_is_found_and_left_out(painted, tmp_path):
    augmented = read_set(painted)
    results = audit_set(augmented, lambda pixels: pixels[..., 0] < 128)
    assert [result.iou for result in results] == [1, 0, 1, 1] and weak_images(results, 0.3) == {2}
    summary = summarise(results, augmented, 0.3)
    assert summary["images"] == 4 and summary["weak_images"] == 1
    assert summary["classes"]["dent"]["histogram"] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert summary["classes"]["dent"]["IoU"] == 0.75 and summary["classes"]["all"]["weak"] == 1
    assert write_passed(augmented, tmp_path / "passed", results, 0.3) == 3
    records = load_coco_json(str(tmp_path / "passed/annotations.json"), str(tmp_path / "passed/images"))
    names = [Path(record["file_name"]).name for record in records]
    assert names == ["aug_000000.png", "aug_000002.png", "aug_000003.png"] and all(r["annotations"] for r in records)
    assert (read_rgb(records[1]["file_name"]) == read_rgb(painted / "images/aug_000002.png")).all()
    lines = [json.loads(line) for line in (tmp_path / "passed/provenance.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == names and lines[0]["objects"][0]["agreement"] == 1
    with pytest.raises(UserError, match="holds files"):
        write_passed(augmented, tmp_path / "passed", results, 0.3)
    nothing = audit_set(augmented, lambda pixels: np.zeros((64, 64), bool))
    with pytest.raises(UserError, match="lower --min-agreement"):
        write_passed(augmented, tmp_path / "none", nothing, 0.3)


def test_audit_on_the_command_line(painted, tmp_path, capsys):
    torch.manual_seed(0)
    network = build_segmenter("unet_small")
    write_segmenter(tmp_path / "s.pth", network, SegmentOptions("unet_small", threshold=0.4))
    segmenter = read_segmenter(tmp_path / "s.pth", "cpu")
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        expected = network.eval()(image[None]).sigmoid()[0] > 0.4
    assert (segmenter.find(image) == expected).all() and segmenter.options.threshold == 0.4
    words = ["segment", "--audit", str(painted), "--segmenter", str(tmp_path / "s.pth")]
    assert not inpaint.main(words)
    assert "4 images have an object below 0.3" in capsys.readouterr().out
    report = json.loads((painted / "audit.json").read_text())
    assert len(report["objects"]) == 4 and report["segmenter_sha256"] == segmenter.digest
    for change, said in (
        (["--min-agreement", "2"], "from 0 to 1"),
        (["--segmenter", str(tmp_path / "x.pth")], "does not exist"),
        (["--segmenter", str(painted / "audit.json")], "is not a checkpoint"),
    ):
        with pytest.raises(UserError, match=said):
            inpaint.main([*words, *change])
    with pytest.raises(UserError, match="holds no set of inpaint.py augment"):
        inpaint.main(["segment", "--audit", str(tmp_path), *words[3:]])
