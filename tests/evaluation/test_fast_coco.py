"""FastCOCOEvaluator: pycocotools' numbers, Boundary AP by an own definition, odd data sets, the config's choice."""

import contextlib
import copy
import io
import json
import math

import numpy as np
import pytest
from coco_scene import CLASSES, evaluate, make_predictions, make_records, process, register, unregister
from detectron2.config import get_cfg
from detectron2.evaluation import COCOEvaluator
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import binary_erosion

from gan_plugin import add_gan_config
from gan_plugin.engine.check_config import check_values
from gan_plugin.errors import UserError
from gan_plugin.evaluation.build import build_evaluator, metric_names
from gan_plugin.evaluation.fast_coco import FastCOCOEvaluator

NAME = "made_up_for_fast_coco"
STATS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
BY_CLASS = [f"AP-{name}" for name in CLASSES]


@pytest.fixture
def scene(tmp_path):
    """(records, predictions) of a data set whose own class ids have gaps, registered under NAME."""
    records = make_records()
    register(NAME, records, thing_dataset_id_to_contiguous_id={3: 0, 7: 1, 12: 2})
    yield records, make_predictions(records)
    unregister(NAME)


def reference(evaluator, folder, task, evaluation=COCOeval):
    """The twelve numbers and the APs of the classes, by pycocotools from the files that `evaluator` has written."""
    results = json.loads((folder / "coco_instances_results.json").read_text())
    for result in results:
        if task == "segm":
            del result["bbox"]
    truth = copy.deepcopy(evaluator._coco_api)
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval = evaluation(truth, truth.loadRes(results), task)
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    precision = np.moveaxis(coco_eval.eval["precision"][:, :, :, 0, -1], 2, 0)
    by_class = [p[p > -1].mean() if (p > -1).any() else -1 for p in precision]
    scores = dict(zip(STATS + BY_CLASS, [*coco_eval.stats, *by_class], strict=True))
    return {name: math.nan if value < 0 else 100 * value for name, value in scores.items()}


def same(scores, expected):
    return scores == pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)


def test_the_numbers_are_those_of_pycocotools(scene, tmp_path):
    evaluator = FastCOCOEvaluator(NAME, output_dir=str(tmp_path))
    scores = evaluate(evaluator, *scene)
    for task in ("bbox", "segm"):
        expected = reference(evaluator, tmp_path, task)
        assert same(scores[task], expected)
        # the scene is neither trivial nor perfect, and a class without objects has no AP
        assert all(5 < expected[name] < 95 for name in STATS)
        assert math.isnan(expected["AP-jar"])
    assert scores["bbox"]["APm"] != pytest.approx(scores["segm"]["APm"], abs=0.1)


def test_the_numbers_are_those_of_the_stock_evaluator_also_on_a_part_and_with_another_limit(scene, tmp_path):
    images = [record["image_id"] for record in scene[0]][2:6]
    for limit, part in ((None, None), (100, images), (5, None)):
        both = []
        for kind, folder in ((COCOEvaluator, tmp_path / "stock"), (FastCOCOEvaluator, tmp_path / "fast")):
            evaluator = kind(NAME, tasks=("bbox", "segm"), output_dir=str(folder), max_dets_per_image=limit)
            process(evaluator, *scene)
            both.append(evaluator.evaluate(img_ids=part))
        for task in ("bbox", "segm"):
            assert same({name: both[1][task][name] for name in both[0][task]}, both[0][task])
        limits = {name for name in both[1]["segm"] if name.startswith("AR")}
        assert limits == {"AR1", "AR10", f"AR{limit or 100}", "ARs", "ARm", "ARl"}


class BoundaryReference(COCOeval):
    """pycocotools with the smaller of mask IoU and boundary IoU, by erosion of whole images (Cheng et al. 2021)."""

    def computeIoU(self, image, category):  # noqa: N802 - pycocotools' name
        truth = self._gts[image, category]
        found = sorted(self._dts[image, category], key=lambda result: -result["score"])[: self.params.maxDets[-1]]
        ious = np.zeros((len(found), len(truth)))
        for i, result in enumerate(found):
            for j, annotation in enumerate(truth):
                ious[i, j] = self.overlap(self.cocoDt.annToMask(result) > 0, annotation)
        return ious if ious.size else []

    def overlap(self, mask, annotation):
        other = self.cocoGt.annToMask(annotation) > 0
        if annotation["iscrowd"]:
            return (mask & other).sum() / mask.sum()
        bands = self.band(mask), self.band(other)
        return min((a & b).sum() / (a | b).sum() for a, b in ((mask, other), bands))

    @staticmethod
    def band(mask):
        """The pixels nearer than 2 % of the diagonal to a pixel outside, and what lies outside the image counts."""
        distance = max(1, round(0.02 * math.hypot(*mask.shape)))
        return mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)


@pytest.mark.parametrize(("height", "width"), [(40, 56), (150, 200)])
def test_boundary_ap_is_that_of_an_independent_definition(tmp_path, height, width):
    records = make_records(seed=3, images=5, height=height, width=width)
    register(NAME, records, thing_dataset_id_to_contiguous_id={3: 0, 7: 1, 12: 2})
    try:
        evaluator = FastCOCOEvaluator(NAME, ("segm", "boundary"), str(tmp_path))
        scores = evaluate(evaluator, records, make_predictions(records))
    finally:
        unregister(NAME)
    assert same(scores["boundary"], reference(evaluator, tmp_path, "segm", evaluation=BoundaryReference))
    assert 1 < scores["boundary"]["AP"] < scores["segm"]["AP"] - 5


def test_evaluating_twice_changes_nothing(scene, tmp_path):
    evaluator = FastCOCOEvaluator(NAME, ("bbox", "segm", "boundary"), str(tmp_path))
    first = evaluate(evaluator, *scene)
    predictions = copy.deepcopy(evaluator._predictions)
    for task, scores in evaluator.evaluate().items():
        assert same(scores, first[task])
    assert evaluator._predictions == predictions


def test_no_predictions_at_all_is_no_number_as_in_detectron2(scene, tmp_path):
    records, _ = scene
    nothing = {record["image_id"]: [] for record in records}
    scores = evaluate(FastCOCOEvaluator(NAME, ("bbox", "boundary"), str(tmp_path)), records, nothing)
    stock = evaluate(COCOEvaluator(NAME, ("bbox",), output_dir=str(tmp_path)), records, nothing)
    assert set(stock["bbox"]) < set(scores["bbox"]) == set(STATS)
    assert all(math.isnan(value) for task in (scores, stock) for value in task["bbox"].values())
    assert set(scores["boundary"]) == set(STATS)


def test_no_annotation_in_any_image_is_no_number(tmp_path):
    records = make_records(images=2)
    predictions = make_predictions(records)
    register(NAME, [{**record, "annotations": []} for record in records])
    try:
        scores = evaluate(FastCOCOEvaluator(NAME, ("segm", "boundary"), str(tmp_path)), records, predictions)
    finally:
        unregister(NAME)
    assert all(math.isnan(value) for task in scores.values() for value in task.values())


def test_predictions_of_another_data_set_and_unknown_tasks_are_a_sentence(scene, tmp_path):
    records, predictions = scene
    evaluator = FastCOCOEvaluator(NAME, output_dir=str(tmp_path))
    image = records[2]["image_id"]
    stranger = {**records[2], "image_id": "stranger.png"}
    with pytest.raises(UserError, match=f"'{NAME}' holds no image 'stranger.png'"):
        evaluate(evaluator, [stranger], {"stranger.png": predictions[image]})
    with pytest.raises(UserError, match=f"class 3, but '{NAME}' has 3 classes; set MODEL.ROI_HEADS.NUM_CLASSES to 3"):
        evaluate(evaluator, [records[2]], {image: [(3, predictions[image][0][1], 0.5)]})
    with pytest.raises(UserError, match="no COCO task 'keypoints' here; choose from bbox, segm, boundary"):
        FastCOCOEvaluator(NAME, ("bbox", "keypoints"), str(tmp_path))


def config(**test_keys):
    cfg = get_cfg()
    add_gan_config(cfg)
    cfg.MODEL.MASK_ON, cfg.MODEL.DEVICE = True, "cpu"
    for key, value in test_keys.items():
        setattr(cfg.TEST, key, value)
    return cfg


def test_the_config_chooses(scene, tmp_path):
    default = build_evaluator(config(), NAME, str(tmp_path))
    assert isinstance(default, COCOEvaluator) and not isinstance(default, FastCOCOEvaluator)
    expected = evaluate(default, *scene)
    for compiled in (False, True):  # where Detectron2 has its extension, it computes the same without pycocotools
        stock = evaluate(COCOEvaluator(NAME, ("bbox", "segm"), output_dir=None, use_fast_impl=compiled), *scene)
        for task in stock:
            assert same({name: expected[task][name] for name in stock[task]}, stock[task])
    cfg = config(COCO_EVALUATOR="faster", BOUNDARY_AP=True, PER_IMAGE_AP=True)
    scores = evaluate(build_evaluator(cfg, NAME, str(tmp_path)), *scene)
    assert set(scores) == {"bbox", "segm", "boundary", "per_image"} and set(expected) == {"bbox", "segm"}
    for task in expected:
        assert same({name: scores[task][name] for name in expected[task]}, expected[task])
    cfg.TEST.BOUNDARY_AP = cfg.TEST.PER_IMAGE_AP = cfg.MODEL.MASK_ON = False
    assert set(evaluate(build_evaluator(cfg, NAME, str(tmp_path)), *scene)) == {"bbox"}


@pytest.mark.parametrize("way", ["pycocotools", "faster"])
def test_as_many_of_an_image_are_evaluated_as_the_model_may_find(scene, tmp_path, caplog, way):
    """Each image has 120 empty corners of one class, surer than what is right: COCO's usual 100 are all wrong."""
    records, right = scene[0][:4], scene[1]
    predictions = {}
    for record in records:
        corner = np.zeros((record["height"], record["width"]), bool)
        corner[:2, :2] = True
        own = [(number, mask, score / 2) for number, mask, score in right.get(record["image_id"], ()) if number == 0]
        predictions[record["image_id"]] = [(0, corner, 0.9)] * 120 + own
    for found, limit in ((-1, 100), (100, 100), (300, 300)):
        caplog.clear()
        cfg = config(COCO_EVALUATOR=way, DETECTIONS_PER_IMAGE=found)
        with caplog.at_level("INFO", "gan_plugin.evaluation.build"):
            scores = evaluate(build_evaluator(cfg, NAME, str(tmp_path)), records, predictions)["segm"]
        stock = evaluate(
            COCOEvaluator(NAME, ("segm",), output_dir=None, max_dets_per_image=limit), records, predictions
        )
        assert same({name: scores[name] for name in stock["segm"]}, stock["segm"])
        assert (scores[f"AR{limit}"] > 5) == (limit == 300)
        assert caplog.text.count("up to 300 detections of an image") == (limit == 300)
        cfg.DATASETS.TEST = (NAME,)
        assert {f"segm/{name}" for name in scores} <= set(metric_names(cfg))


@pytest.mark.parametrize(
    ("keys", "masks", "sentence"),
    [
        ({"COCO_EVALUATOR": "slower"}, True, "TEST.COCO_EVALUATOR is 'slower'.*'pycocotools', 'faster'"),
        ({"BOUNDARY_AP": True}, True, 'needs TEST.COCO_EVALUATOR "faster"'),
        ({"BOUNDARY_AP": True, "COCO_EVALUATOR": "faster"}, False, "BOUNDARY_AP measures masks, but MODEL.MASK_ON"),
        ({"PER_IMAGE_AP": True}, False, "PER_IMAGE_AP measures masks, but MODEL.MASK_ON"),
    ],
)
def test_contradicting_keys_are_refused_before_training_and_by_the_evaluator(scene, tmp_path, keys, masks, sentence):
    cfg = config(**keys)
    cfg.MODEL.MASK_ON = masks
    with pytest.raises(UserError, match=sentence):
        check_values(cfg)
    with pytest.raises(UserError, match=sentence):
        build_evaluator(cfg, NAME, str(tmp_path))
