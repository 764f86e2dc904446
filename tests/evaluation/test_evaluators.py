"""Evaluators: perfect and imperfect predictions, hand-worked AP, subsets, the stock numbers, two processes."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import id2label, labels
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_instances
from detectron2.evaluation import CityscapesInstanceEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from PIL import Image
from support import plugin_cfg

from gan_plugin.data.subsets import register_subsets
from gan_plugin.errors import UserError
from gan_plugin.evaluation.build import build_evaluator
from gan_plugin.evaluation.cityscapes import CityscapesInstanceMetrics

NAME = "evaluated_cityscapes"
CLASSES = [label.name for label in labels if label.hasInstances and not label.ignoreInEval]
HEIGHT, WIDTH = 128, 256

# every image holds two persons, a car, a group of persons, and a region that does not count (the ego vehicle)
SCENE = {
    "person": [(10, 10, 50, 70), (70, 10, 110, 70)],
    "car": [(130, 10, 200, 60)],
    "persongroup": [(10, 80, 60, 120)],
    "ego vehicle": [(80, 90, 180, 127)],
}


def write_image(root, index):
    """One Cityscapes image: the scene moved by `index` pixels, rasterised by cityscapesScripts itself."""
    image = root / "leftImg8bit" / "val" / "ulm" / f"ulm_{index:06d}_000019_leftImg8bit.png"
    truth = root / "gtFine" / "val" / "ulm" / f"ulm_{index:06d}_000019_gtFine"
    image.parent.mkdir(parents=True, exist_ok=True)
    truth.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(image)
    objects = [
        {"label": label, "polygon": [[x0 + index, y0], [x1 + index, y0], [x1 + index, y1], [x0 + index, y1]]}
        for label, boxes in SCENE.items()
        for x0, y0, x1, y1 in boxes
    ]
    polygons = json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects})
    Path(f"{truth}_polygons.json").write_text(polygons)
    annotation = Annotation()
    annotation.fromJsonText(polygons)
    # not json2instanceImg, which saves the image as 32 bit: Pillow 13 refuses to write that as PNG
    save_ids(createInstanceImage(annotation, "ids"), f"{truth}_instanceIds.png")
    Image.new("L", (WIDTH, HEIGHT)).save(f"{truth}_labelIds.png")


def save_ids(ids, path):
    Image.fromarray(np.asarray(ids).astype(np.uint16)).save(path)


def register(name, root):
    image_dir, gt_dir = str(root / "leftImg8bit" / "val"), str(root / "gtFine" / "val")
    DatasetCatalog.register(name, lambda: load_cityscapes_instances(image_dir, gt_dir))
    MetadataCatalog.get(name).set(
        thing_classes=CLASSES, image_dir=image_dir, gt_dir=gt_dir, evaluator_type="cityscapes_instance"
    )


@pytest.fixture
def cityscapes(tmp_path, monkeypatch):
    """Three images, registered under NAME; the working directory is a scratch one."""
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        write_image(tmp_path, index)
    register(NAME, tmp_path)
    yield tmp_path
    for name in [name for name in DatasetCatalog.list() if name.startswith(NAME)]:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def images_of(root):
    return sorted(str(path) for path in (root / "leftImg8bit").rglob("*.png"))


def truth_as_predictions(image_file, score=0.9):
    """[(class name, mask, score)] of the instances in the instance-id image."""
    path = image_file.replace("leftImg8bit/val", "gtFine/val").replace("_leftImg8bit", "_gtFine_instanceIds")
    ids = np.asarray(Image.open(path))
    return [(id2label[i // 1000].name, ids == i, score) for i in np.unique(ids) if i >= 1000]


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def scores_of(evaluator, predictions):
    """Evaluate {image file: [(class name, mask, score)]}."""
    evaluator.reset()
    for image_file, found in predictions.items():
        instances = Instances((HEIGHT, WIDTH))
        masks = np.stack([mask for _, mask, _ in found]) if found else np.zeros((0, HEIGHT, WIDTH), bool)
        edges = [(np.flatnonzero(m.any(0))[[0, -1]], np.flatnonzero(m.any(1))[[0, -1]]) for m in masks]
        boxes = [[x[0], y[0], x[1] + 1, y[1] + 1] for x, y in edges]
        instances.pred_boxes = Boxes(torch.tensor(np.array(boxes, np.float32).reshape(-1, 4)))
        instances.pred_masks = torch.from_numpy(masks)
        instances.pred_classes = torch.tensor([CLASSES.index(name) for name, _, _ in found], dtype=torch.int64)
        instances.scores = torch.tensor([score for _, _, score in found])
        record = {"file_name": image_file, "image_id": Path(image_file).name, "height": HEIGHT, "width": WIDTH}
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()


def moved(predictions, pixels):
    return [(name, np.roll(mask, pixels, axis=1), score - 0.1 * pixels / 10) for name, mask, score in predictions]


def test_the_truth_as_prediction_scores_100_and_a_missing_class_0(cityscapes, tmp_path):
    cfg = plugin_cfg()
    cfg.MODEL.MASK_ON, cfg.OUTPUT_DIR = True, str(tmp_path / "output")
    evaluator = build_evaluator(cfg, NAME)
    truth = {image: truth_as_predictions(image) for image in images_of(cityscapes)}
    scores = scores_of(evaluator, truth)
    assert scores["cityscapes"] == pytest.approx(
        {key: 100 for key in ("AP", "AP50", "AP-person", "AP50-person", "AP-car", "AP50-car")}
    )
    assert scores["segm"]["AP"] == pytest.approx(100)
    assert scores["bbox"]["AP"] == pytest.approx(100)

    without_cars = {image: [p for p in found if p[0] != "car"] for image, found in truth.items()}
    scores = scores_of(evaluator, without_cars)
    assert (scores["cityscapes"]["AP-car"], scores["cityscapes"]["AP-person"]) == (0, pytest.approx(100))
    assert scores["cityscapes"]["AP"] == pytest.approx(50)
    assert (scores["segm"]["AP-car"], scores["segm"]["AP-person"]) == (0, pytest.approx(100))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ((12, 82, 58, 118), 100),  # inside the group of persons: ignored
        ((90, 95, 170, 120), 100),  # on the ego vehicle: ignored
        # on unlabelled ground (id 0) pixels do not count either, so the false positive sits on the car
        ((135, 15, 195, 55), 100 / 3),
    ],
)
def test_a_confident_extra_person_by_where_it_is(cityscapes, extra, expected):
    """Its score is above both true persons'. The official curve is then recall 1, 0, 0 at precision 2/3, 0, 1.

    Its step widths are half the differences of the neighbours, (1/2, 1/2, 0), so AP = 2/3 * 1/2 = 33.3 %.
    """
    image = images_of(cityscapes)[0]
    found = [*truth_as_predictions(image), ("person", rectangle(*extra), 0.95)]
    scores = scores_of(CityscapesInstanceMetrics(NAME), {image: found})["cityscapes"]
    assert [scores["AP-person"], scores["AP50-person"]] == pytest.approx([expected, expected])
    assert scores["AP-car"] == pytest.approx(100)


def test_a_subset_scores_as_the_stock_evaluator_does_on_those_images_alone(cityscapes, tmp_path):
    predictions = {image: moved(truth_as_predictions(image), 4 * i) for i, image in enumerate(images_of(cityscapes))}
    stock = scores_of(CityscapesInstanceEvaluator(NAME), predictions)["segm"]
    ours = scores_of(CityscapesInstanceMetrics(NAME), predictions)["cityscapes"]
    assert 10 < ours["AP"] < 90
    assert {key: ours[key] for key in ("AP", "AP50")} == stock

    for index in (1, 2):
        write_image(tmp_path / "two", index)
    register(f"{NAME}_two", tmp_path / "two")
    two = list(predictions)[1:]
    alone = dict(zip(images_of(tmp_path / "two"), [predictions[image] for image in two], strict=True))
    stock_two = scores_of(CityscapesInstanceEvaluator(f"{NAME}_two"), alone)["segm"]
    ours_two = scores_of(CityscapesInstanceMetrics(NAME), {image: predictions[image] for image in two})["cityscapes"]
    assert {key: ours_two[key] for key in ("AP", "AP50")} == stock_two
    assert stock_two != stock


def test_no_predictions_is_0_nothing_to_find_is_left_out_and_no_files_stay(cityscapes):
    image = images_of(cityscapes)[0]
    evaluator = CityscapesInstanceMetrics(NAME)
    assert scores_of(evaluator, {image: []})["cityscapes"]["AP"] == 0
    assert not Path(evaluator._temp_dir).exists()
    truth = cityscapes / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png"
    save_ids(np.zeros((HEIGHT, WIDTH)), truth)
    assert scores_of(evaluator, {image: []}) == {"cityscapes": {}}


def test_missing_and_broken_truth_is_a_sentence_and_no_files_stay(cityscapes):
    image = images_of(cityscapes)[0]
    found = truth_as_predictions(image)
    truth = cityscapes / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png"
    evaluator = CityscapesInstanceMetrics(NAME)
    truth.write_bytes(b"broken")
    with pytest.raises(UserError, match=f"{truth}: this is no instance id image"):
        scores_of(evaluator, {image: found})
    truth.unlink()
    with pytest.raises(UserError, match=f"{truth} is missing"):
        scores_of(evaluator, {image: found})
    assert not Path(evaluator._temp_dir).exists()


def _evaluate_on_rank(rank, rendezvous, image_and_found, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    comm.create_local_process_group(2)
    scores = scores_of(CityscapesInstanceMetrics(NAME), dict([image_and_found[rank]]))
    results.put((rank, scores and dict(scores["cityscapes"])))
    torch.distributed.destroy_process_group()


def test_two_processes_score_as_one(cityscapes, tmp_path):
    predictions = [(image, moved(truth_as_predictions(image), 4 * i)) for i, image in enumerate(images_of(cityscapes))]
    alone = scores_of(CityscapesInstanceMetrics(NAME), dict(predictions[:2]))["cityscapes"]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (str(tmp_path / "rendezvous"), predictions, results)
    ranks = [context.Process(target=_evaluate_on_rank, args=(rank, *arguments), daemon=True) for rank in (0, 1)]
    for process in ranks:
        process.start()
    collected = dict(results.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(timeout=30)
    assert collected == {0: alone, 1: None}


def test_the_coco_truth_is_never_a_stale_file(cityscapes, tmp_path):
    cfg = plugin_cfg()
    cfg.MODEL.MASK_ON = False
    folder = str(tmp_path / "output")
    drawn = []
    for seed in (0, 1):
        name = register_subsets(NAME, seed, {"one": 1})[0]
        expected = [record["image_id"] for record in DatasetCatalog.get(name)]
        assert build_evaluator(cfg, name, folder)._coco_api.getImgIds() == expected
        (tmp_path / "output" / f"{name}_coco_format.json").unlink()
        assert build_evaluator(cfg, name, folder)._coco_api.getImgIds() == expected
        drawn += expected
    assert drawn[0] != drawn[1]


def test_an_unknown_evaluator_type_lists_the_known_ones(cityscapes):
    register_subsets(NAME, 0, {"one": 1})
    del MetadataCatalog.get(f"{NAME}_one").evaluator_type
    with pytest.raises(UserError, match="evaluator_type None.*cityscapes_instance, coco"):
        build_evaluator(plugin_cfg(), f"{NAME}_one")
