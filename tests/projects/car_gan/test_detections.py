"""The detector in the builder against Detectron2's own predictor, and the matching of boxes."""

import json

import numpy as np
import pytest
import torch
from car_gan.crops.detections import Detection, RecordedScores, iou, match
from car_gan.crops.filters import crop_box
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import SMALLEST_MODEL, plugin_cfg

from gan_plugin.errors import UserError

CAR = 2


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A Faster R-CNN with random weights that finds everything everywhere: its config file and its weights."""
    folder = tmp_path_factory.mktemp("detector")
    cfg = plugin_cfg()
    cfg.merge_from_list([part for option in SMALLEST_MODEL.items() for part in option])
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON = "GeneralizedRCNN", "cpu", False
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FREEZE_AT = "build_resnet_fpn_backbone", 0
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.HEAD_NAME, cfg.MODEL.ROI_HEADS.NAME = "StandardRPNHead", "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 7, 14
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 8, 0.0
    cfg.INPUT.MIN_SIZE_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 96, 1000
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 100
    cfg.DATASETS.TEST = ("cityscapes_fine_instance_seg_val",)
    torch.manual_seed(0)
    model = build_model(cfg)
    DetectionCheckpointer(model, str(folder)).save("weights")
    (folder / "detector.yaml").write_text(cfg.dump())
    return folder / "detector.yaml", folder / "weights.pth", cfg


def predicted(cfg, weights, pixels):
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = str(weights)
    found = DefaultPredictor(cfg)(np.ascontiguousarray(pixels[..., ::-1]))["instances"]
    return [i for i in range(len(found)) if found.pred_classes[i] == CAR], found


@pytest.mark.parametrize("run_on", ["green", "scene"])
def test_scores_and_boxes_are_the_predictors(detector, toy, tmp_path, cli, run_on):
    config, weights, cfg = detector
    out = tmp_path / "out"
    options = ("DETECTOR.CONFIG", config, "DETECTOR.WEIGHTS", weights, "DETECTOR.RUN_ON", run_on)
    rest = ("DETECTOR.MIN_SCORE", 0, "DETECTOR.MIN_IOU", 0.05, "SPLITS", "('val',)", "MODE", "green_full")
    assert cli("build", "--cityscapes", toy, "--output", out, *options, *rest) == 0
    record = json.loads((out / "manifest.jsonl").read_text().splitlines()[0])
    image = np.asarray(Image.open(record["image"]).convert("RGB")).copy()
    if run_on == "green":
        truth = record["image"].replace("leftImg8bit", "gtFine").replace("_gtFine.png", "_gtFine_instanceIds.png")
        image[np.asarray(Image.open(truth)) != 26000 + record["instance"]] = (51, 255, 51)
    cars, found = predicted(cfg, weights, image)
    boxes, scores = found.pred_boxes.tensor[cars], found.scores[cars]
    if run_on == "green":
        best = int(scores.argmax())
    else:
        best = [i for i in range(len(cars)) if scores[i].item() == record["detector_score"]][0]
        assert iou(tuple(boxes[best].tolist()), record["box_truth"]) >= 0.05
    assert record["detector_score"] == pytest.approx(float(scores[best]), abs=1e-6)
    assert record["box_detected"] == pytest.approx(boxes[best].tolist(), abs=1e-3)
    # asked once, recorded, and taken from there
    again = tmp_path / "again"
    assert cli("build", "--cityscapes", toy, "--output", again, "DETECTOR.RECORDED", out / "scores.json", *rest) == 0
    assert (again / "manifest.jsonl").read_bytes() == (out / "manifest.jsonl").read_bytes()


def test_a_detector_of_other_things_is_refused(detector, toy, tmp_path, cli, capsys):
    config, weights, _ = detector
    words = ("build", "--cityscapes", toy, "--output", tmp_path / "out", "DETECTOR.CONFIG", config)
    assert cli(*words, "DETECTOR.WEIGHTS", weights, "CATEGORY", "caravan") == 2
    assert "have no class 'caravan' (person, rider, car" in capsys.readouterr().err
    assert cli(*words, "DETECTOR.WEIGHTS", tmp_path / "no.pth") == 2
    assert "no.pth cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 9, 8, 9], [9, 5, 5, 9]])
def test_a_recorded_box_without_area_is_named(tmp_path, box):
    (tmp_path / "scores.json").write_text(json.dumps({"scores": {"a#0": {"box": box, "score": 0.9}}}))
    with pytest.raises(UserError, match=r"scores.json: the box of a#0, \[\d.*\], has no area; write null there"):
        RecordedScores(tmp_path / "scores.json")


def test_the_surest_detection_chooses_first_and_each_box_is_given_once():
    left, right = (0.0, 0.0, 10.0, 10.0), (6.0, 0.0, 16.0, 10.0)
    between = Detection((3.0, 0.0, 13.0, 10.0), 0.99)
    exact, stray = Detection((0.0, 0.0, 10.0, 10.0), 0.95), Detection((40.0, 40.0, 50.0, 50.0), 1.0)
    # 70 of 130 pixels are shared with either; the first of equals is the left one
    assert iou(between.box, left) == pytest.approx(70 / 130) == iou(between.box, right)
    assert match([exact, between, stray], [left, right], 0.5) == [between, None]
    assert match([exact, between, stray], [left, right], 0.25) == [between, exact]
    assert match([exact], [left, right], 0.5) == [exact, None] and match([], [left], 0.5) == [None]


sides = st.floats(0, 90, allow_nan=False)


@given(st.tuples(sides, sides, sides, sides), st.floats(0, 0.5), st.booleans())
def test_crops_hold_their_box(corners, pad, square):
    x0, y0, width, height = corners
    box = (x0, y0, x0 + width, y0 + height)
    x, y, right, bottom = crop_box(box, pad, square)
    margin = pad * max(width, height)
    assert x <= x0 - margin + 1e-6 and y <= y0 - margin + 1e-6
    assert right >= box[2] + margin - 1e-6 and bottom >= box[3] + margin - 1e-6
    assert all(edge == int(edge) for edge in (x, y, right, bottom))
    assert right - x >= 1 and bottom - y >= 1
    if square:
        assert right - x == bottom - y
        assert right - x < max(width, height) + 2 * margin + 3
    else:
        assert right - x < width + 2 * margin + 3 and bottom - y < height + 2 * margin + 3
