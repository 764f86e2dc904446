"""Masks in truth boxes: a head that draws what can be worked out by hand, every kind of head, and what is refused."""

import json
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from coco_scene import annotation, unregister
from detectron2.config import LazyCall
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, build_detection_test_loader
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Boxes, Instances
from foreign_models import KINDS, foreign_cfg
from omegaconf import OmegaConf
from PIL import Image
from small_models import AGNOSTIC, CASCADE, POINT_REND, small
from support import in_two_processes, plugin_cfg

from gan_plugin import AdversarialTrainer, UserError
from gan_plugin.engine.lazy_trainer import evaluate
from gan_plugin.evaluation.build import build_evaluator, metric_names, official_evaluator
from gan_plugin.evaluation.truth_boxes import SCORES_FILE, boundary_iou, evaluating

NAME = "made_up_for_truth_boxes"
HEIGHT, WIDTH = 80, 120
# (class, left, top, right, bottom) of the objects of three images, which fill their boxes; one image is empty
SCENE = {
    "one": [(0, 10, 10, 50, 50), (1, 60, 20, 100, 70)],
    "two": [(1, 0, 0, 40, 80)],
    "none": [],
}
_EMPTY = mask_util.encode(np.zeros((HEIGHT, WIDTH), np.uint8, order="F"))
NOTHING = {"size": _EMPTY["size"], "counts": _EMPTY["counts"].decode()}


class DrawsHalves(torch.nn.Module):
    """Of class 0 the whole box, of class 1 its left half, of class 2 nothing."""

    def forward(self, x, instances):
        logits = torch.full((sum(map(len, instances)), 3, 28, 28), -9.0)
        logits[:, 0] = 9
        logits[:, 1, :, :14] = 9
        mask_rcnn_inference(logits, instances)
        return instances


def rectangle(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def scene(tmp_path):
    """The records: crowds and objects without a mask among them would lower every mean."""
    records = []
    for name, objects in SCENE.items():
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / f"{name}.png")
        annotations = [annotation(rectangle(*sides), number) for number, *sides in objects]
        if objects:
            annotations.append(annotation(rectangle(5, 5, 25, 25), 2, crowd=1))
            annotations.append({**annotation(rectangle(5, 5, 25, 25), 2), "segmentation": NOTHING})
        file = str(tmp_path / f"{name}.png")
        size = {"height": HEIGHT, "width": WIDTH}
        records.append({"file_name": file, "image_id": name, "annotations": annotations, **size})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(thing_classes=["cup", "lid", "jar"], evaluator_type="coco")
    yield records
    unregister(NAME)


def config(tiny_cfg, folder, *changes):
    cfg = small(tiny_cfg, {"MODEL.ROI_HEADS.NUM_CLASSES": 3, "MODEL.GAN.ENABLED": False}, *changes)
    cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS, cfg.OUTPUT_DIR = (NAME,), 0, str(folder)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.TEST.TRUTH_BOXES = HEIGHT, 999, True
    if "MODEL.POINT_HEAD.NUM_CLASSES" in {key for change in changes for key in change}:
        cfg.MODEL.POINT_HEAD.NUM_CLASSES = 3
    return cfg


def expected_scores():
    rows = []
    for number, left, top, right, bottom in (one for objects in SCENE.values() for one in objects):
        truth = rectangle(left, top, right, bottom)
        drawn = truth if number == 0 else rectangle(left, top, (left + right) // 2, bottom)
        rows.append((number, 1.0 if number == 0 else 0.5, boundary_iou(drawn, truth)))
    return rows


@pytest.mark.parametrize("side", [HEIGHT, 40, 200])
def test_a_head_that_draws_halves(tiny_cfg, scene, tmp_path, side):
    """However large the model's input is, and whatever the model itself would have found."""
    cfg = config(tiny_cfg, tmp_path)
    cfg.INPUT.MIN_SIZE_TEST = side
    model = build_model(cfg)
    model.roi_heads.mask_head = DrawsHalves()
    scores = AdversarialTrainer.test(cfg, model)["truth_boxes"]
    (whole, half, other) = expected_scores()
    assert half[2] < 0.7 and half[2] != other[2]
    assert scores == pytest.approx(
        {
            "mask_iou": 100 * (1 + 0.5 + 0.5) / 3,
            "boundary_iou": 100 * (1 + half[2] + other[2]) / 3,
            "mask_iou_image": 100 * (0.75 + 0.5) / 2,
            "boundary_iou_image": 100 * ((1 + half[2]) / 2 + other[2]) / 2,
            "mask_iou-cup": 100,
            "boundary_iou-cup": 100,
            "mask_iou-lid": 50,
            "boundary_iou-lid": 100 * (half[2] + other[2]) / 2,
        }
    )
    assert {f"truth_boxes/{name}" for name in scores} < set(metric_names(cfg))
    rows = json.loads((tmp_path / "inference" / SCORES_FILE).read_text())
    assert [row["image_id"] for row in rows] == ["one", "one", "two"]
    assert [row["class"] for row in rows] == [0, 1, 1] and rows[0]["mask_iou"] == whole[1]


def by_hand(model, records):
    """Mask IoU and boundary IoU of one image at a time, in its own size."""
    found = []
    for record in records:
        objects = [one for one in record["annotations"] if not one["iscrowd"] and one["segmentation"] != NOTHING]
        if not objects:
            continue
        told = Instances((HEIGHT, WIDTH))
        told.pred_boxes = Boxes(torch.tensor([one["bbox"] for one in objects]))
        told.pred_classes = torch.tensor([one["category_id"] for one in objects])
        image = torch.zeros(3, HEIGHT, WIDTH)
        with torch.no_grad():
            (answer,) = GeneralizedRCNN.inference(
                model.eval(), [{"image": image, "height": HEIGHT, "width": WIDTH}], [told]
            )
        truth = [mask_util.decode(one["segmentation"]) > 0 for one in objects]
        for drawn, mask in zip(answer["instances"].pred_masks.numpy(), truth, strict=True):
            found.append(((drawn & mask).sum() / (drawn | mask).sum(), boundary_iou(drawn, mask)))
    return 100 * np.mean(found, axis=0)


@pytest.mark.parametrize(
    "changes", [(), (CASCADE,), (POINT_REND,), (AGNOSTIC,)], ids=["plain", "cascade", "points", "1"]
)
def test_every_kind_of_head_and_one_with_discriminators(tiny_cfg, scene, tmp_path, changes):
    torch.manual_seed(0)
    cfg = config(tiny_cfg, tmp_path, *changes, {"MODEL.GAN.ENABLED": True})
    model = build_model(cfg)
    scores = AdversarialTrainer.test(cfg, model)["truth_boxes"]
    expected = by_hand(model, scene)
    assert [scores["mask_iou"], scores["boundary_iou"]] == pytest.approx(expected, abs=1e-3) and expected.min() > 0


def asking(folder):
    """The evaluator alone."""
    cfg = plugin_cfg()
    cfg.MODEL.MASK_ON, cfg.TEST.TRUTH_BOXES = True, True
    return build_evaluator(cfg, NAME, str(folder))._evaluators[-1]


def inputs_of(records):
    return [{**record, "image": torch.zeros(3, HEIGHT, WIDTH)} for record in records]


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_other_projects_answer_or_are_refused_with_a_sentence(scene, tmp_path, kind):
    model = build_model(foreign_cfg(*KINDS[kind], enabled=False)).eval()
    evaluator = asking(tmp_path)
    if not isinstance(model, GeneralizedRCNN):
        sentence = f"TEST.TRUTH_BOXES is for models whose mask .* {type(model).__name__} "
        with pytest.raises(UserError, match=sentence), evaluating(model):
            evaluator.reset()
        return
    with evaluating(torch.nn.ModuleDict({"module": model}) if kind == "plain" else model):
        evaluator.reset()
    evaluator.process(inputs_of(scene), [])
    assert 0 <= evaluator.evaluate()["truth_boxes"]["mask_iou"] <= 100


def _one_image_each(folder, evaluator, records):
    rank = torch.distributed.get_rank()
    evaluator._draw = lambda inputs, told: [{"instances": _drawn(one)} for one in told]
    evaluator.process(inputs_of(records[rank : rank + 1]), [])
    scores = evaluator.evaluate()
    assert (scores is None) == (rank == 1)
    if scores:
        (folder / "scores.json").write_text(json.dumps(scores["truth_boxes"]))


def _drawn(told):
    boxes = told.pred_boxes.tensor.long().tolist()
    rights = [
        (left + right) // 2 if n else right for (left, _, right, _), n in zip(boxes, told.pred_classes, strict=True)
    ]
    masks = [rectangle(box[0], box[1], right, box[3]) for box, right in zip(boxes, rights, strict=True)]
    told.pred_masks = torch.from_numpy(np.stack(masks))
    return told


def test_two_processes_average_over_all_objects(scene, tmp_path):
    in_two_processes(_one_image_each, tmp_path, asking(tmp_path), scene)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mask_iou"] == pytest.approx(200 / 3) and scores["mask_iou_image"] == pytest.approx(62.5)


def test_objects_with_a_box_alone_are_left_out(scene, tmp_path):
    evaluator = asking(tmp_path)
    (first, second) = evaluator._truth.imgToAnns["one"][:2]
    del first["segmentation"]
    second["segmentation"] = []
    evaluator._draw = lambda inputs, told: [{"instances": _drawn(one)} for one in told]
    evaluator.process(inputs_of(scene), [])
    assert evaluator.evaluate()["truth_boxes"]["mask_iou"] == pytest.approx(50)


def test_a_box_that_gets_no_mask_counts_zero_and_nothing_to_see_has_no_score(tiny_cfg, scene, tmp_path):
    scene[0]["annotations"][0]["bbox"] = [10.0, 10.0, 10.0, 50.0]
    cfg = config(tiny_cfg, tmp_path)
    model = build_model(cfg)
    model.roi_heads.mask_head = DrawsHalves()
    assert AdversarialTrainer.test(cfg, model)["truth_boxes"]["mask_iou"] == pytest.approx(100 / 3)
    for record in scene:
        record["annotations"] = record["annotations"][-1:]
    assert AdversarialTrainer.test(cfg, model)["truth_boxes"] == {}


def test_a_lazy_config_measures_the_same(tiny_cfg, scene, tmp_path):
    cfg = config(tiny_cfg, tmp_path)
    cfg.INPUT.MIN_SIZE_TEST = 40
    model = build_model(cfg)
    lazy = OmegaConf.create({"dataloader": {}})
    lazy.dataloader.test = LazyCall(build_detection_test_loader)(
        dataset=scene,
        mapper=LazyCall(DatasetMapper)(
            is_train=False, augmentations=[ResizeShortestEdge(40, 999)], image_format=cfg.INPUT.FORMAT
        ),
    )
    lazy.dataloader.evaluator = LazyCall(official_evaluator)(
        dataset_name=NAME, output_folder=str(tmp_path / "lazy"), truth_boxes=True
    )
    assert evaluate(lazy, model)["truth_boxes"] == AdversarialTrainer.test(cfg, model)["truth_boxes"]
    with pytest.raises(UserError, match="TEST.TRUTH_BOXES is for models whose mask head"):
        evaluate(lazy, build_model(foreign_cfg(*KINDS["queries"], enabled=False)))


def test_augmented_tests_go_without(tiny_cfg, scene, tmp_path, caplog):
    cfg = config(tiny_cfg, tmp_path, {"TEST.AUG.ENABLED": True, "TEST.AUG.MIN_SIZES": (64,)})
    with caplog.at_level("INFO", "gan_plugin"):
        results = AdversarialTrainer.evaluate(cfg, build_model(cfg))
    assert "truth_boxes" in results and set(results["tta"]) == {"bbox", "segm"}
    assert not any(math.isnan(value) for value in results["truth_boxes"].values())
    assert "masks in truth boxes are measured without it" in caplog.text
    names = metric_names(cfg)
    assert "truth_boxes/mask_iou" in names and "tta/truth_boxes/mask_iou" not in names


def test_what_cannot_be_measured_is_said_at_the_start(tiny_cfg, scene, tmp_path):
    cfg = config(tiny_cfg, tmp_path)
    with pytest.raises(UserError, match="TEST.TRUTH_BOXES needs to know the model"):
        asking(tmp_path).process(inputs_of(scene), [])
    cfg.MODEL.MASK_ON = False
    with pytest.raises(UserError, match="TEST.TRUTH_BOXES measures masks, but MODEL.MASK_ON is False"):
        build_evaluator(cfg, NAME)
    query = foreign_cfg(*KINDS["queries"], enabled=False)
    query.TEST.TRUTH_BOXES, query.OUTPUT_DIR = True, str(tmp_path)
    query.DATASETS.TRAIN = (NAME,)
    with pytest.raises(UserError, match="TEST.TRUTH_BOXES is for models whose mask head draws in boxes"):
        AdversarialTrainer(query)
