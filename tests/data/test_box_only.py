"""Objects without a mask: from a COCO JSON or a function through examination and mapper to a training that resumes."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image
from support import assert_same, exit_code, load, plugin_cfg, train

from gan_plugin.data.builtin import prepare_datasets, register_penn_fudan
from gan_plugin.data.mappers import BoxOnlyDatasetMapper, CheckedDatasetMapper, has_mask, keep_masks
from gan_plugin.errors import UserError
from tools.check_data import main as check_data

SIDE = 64
# every way to have no mask, and one to have one
NONE = ({}, {"segmentation": []}, {"segmentation": None}, {"segmentation": [[]]}, {"segmentation": {}})


def outline(x, y, size):
    """A hexagon in a box."""
    points = [(0, 0.5), (0.3, 0), (0.7, 0), (1, 0.5), (0.7, 1), (0.3, 1)]
    return [[float(c) for u, v in points for c in (x + u * size, y + v * size)]]


@pytest.fixture
def coco(tmp_path):
    """(name, JSON, folder): eight pictures of three objects, of which one has a mask on every other picture."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 9):
        pixels = rng.integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        for index in range(3):
            x, y, size = rng.uniform(0, 30, 2).tolist() + [20 + 5 * index]
            key = len(annotations) + 1
            entry = {"id": key, "image_id": number, "category_id": 1, "iscrowd": 0, "area": size**2}
            entry["bbox"] = [x, y, size, size]
            entry |= {"segmentation": outline(x, y, size)} if index == 0 and number % 2 else NONE[key % len(NONE)]
            annotations.append(entry)
            pixels[int(y) : int(y + size), int(x) : int(x + size)] += np.uint8(90)
        annotations[-1]["id"] = key
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content))
    yield "some_masks", str(path), str(tmp_path)
    for name in ("some_masks", "some_masks_test"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def config(coco, out, box_only=True, **test):
    cfg = plugin_cfg()
    cfg.OUTPUT_DIR, cfg.MODEL.MASK_ON, cfg.MODEL.ROI_HEADS.NUM_CLASSES = str(out), True, 1
    cfg.MODEL.GAN.MASK.BOX_ONLY = box_only
    cfg.DATASETS.COCO_JSON, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (coco,), (coco[0],), test.get("test", ())
    return cfg


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_every_object_arrives_with_what_it_has(coco, tmp_path, mask_format):
    cfg = config(coco, tmp_path / "out")
    (remark,) = [line for line in prepare_datasets(cfg, train=True) if "no mask" in line]
    assert "objects have no mask (20 of 24)" in remark and "MODEL.GAN.MASK.BOX_ONLY is True" in remark
    flip = [T.RandomFlip(1.0), T.ResizeShortestEdge([2 * SIDE] * 2)]
    options = {"use_instance_mask": True, "instance_mask_format": mask_format, "image_format": "BGR"}
    known = 0
    for record in DatasetCatalog.get(coco[0]):
        truth = BoxOnlyDatasetMapper(True, augmentations=flip, **options)(record)["instances"]
        boxes = torch.tensor(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]]
        )
        expected = 2 * torch.stack([SIDE - boxes[:, 2], boxes[:, 1], SIDE - boxes[:, 0], boxes[:, 3]], 1)
        torch.testing.assert_close(truth.gt_boxes.tensor, expected, atol=1e-3, rtol=0)
        assert truth.gt_has_mask.tolist() == [has_mask(a) for a in record["annotations"]]
        crops = truth.gt_masks.crop_and_resize(truth.gt_boxes.tensor, 28).float().mean((1, 2))
        # a hexagon fills seven tenths of its box, a stand-in all of it
        assert ((crops > 0.9) == ~truth.gt_has_mask).all()
        known += int(truth.gt_has_mask.sum())
    assert known == 4


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_the_field_survives_crops_that_lose_objects(coco, tmp_path, mask_format):
    """Boxes of masks are recomputed as upstream does it; those of stand-ins are cut, however small they are."""
    cfg = config(coco, tmp_path / "out")
    cfg.INPUT.MASK_FORMAT = mask_format
    prepare_datasets(cfg, train=True)
    records = DatasetCatalog.get(coco[0])
    lost = 0
    for record, x in zip(records, range(0, 32, 4), strict=True):
        crop = [T.CropTransform(x, 40, 24, 24, SIDE, SIDE)]
        options = {"use_instance_mask": True, "instance_mask_format": mask_format, "image_format": "BGR"}
        options |= {"augmentations": crop, "recompute_boxes": True}
        ours = CheckedDatasetMapper(BoxOnlyDatasetMapper(True, **options))(record)["instances"]
        bare = {**record, "annotations": [a for a in record["annotations"] if has_mask(a)]}
        if bare["annotations"]:
            theirs = DatasetMapper(True, **options)(bare)["instances"]
            mine = ours[ours.gt_has_mask]
            assert torch.equal(mine.gt_boxes.tensor, theirs.gt_boxes.tensor)
        boxes = torch.tensor(
            [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]]
        )
        cut = (boxes - torch.tensor([x, 40, x, 40])).clamp(0, 24)
        alone = torch.tensor([not has_mask(a) for a in record["annotations"]])
        left = alone & (cut[:, 2] - cut[:, 0] > 1e-5) & (cut[:, 3] - cut[:, 1] > 1e-5)
        torch.testing.assert_close(ours[~ours.gt_has_mask].gt_boxes.tensor, cut[left].float(), atol=1e-4, rtol=0)
        lost += len(boxes) - len(ours)
    assert lost > 0


def test_without_the_key_they_are_refused_and_told_of_it(coco, tmp_path, capsys):
    with pytest.raises(UserError, match=r"there is no mask .*\(and 19 more.*MODEL.GAN.MASK.BOX_ONLY True") as error:
        prepare_datasets(config(coco, tmp_path / "out", box_only=False), train=True)
    assert "Nothing" not in str(error.value)
    assert exit_code(check_data, "--coco", *coco[1:]) == 2
    assert "20 of 24 objects have no mask; MODEL.GAN.MASK.BOX_ONLY True makes them usable" in capsys.readouterr().out
    assert exit_code(check_data, "--coco", *coco[1:], "--box-only") == 0
    assert "20 of 24 objects have no mask; they teach class and box" in capsys.readouterr().out


def change(coco, edit):
    path = Path(coco[1])
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "edit, sentence",
    [
        (lambda c: [a.pop("segmentation", 0) for a in c["annotations"]], "no annotation has a mask"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 1, 9, 9, 9]]), "odd number"),
        (lambda c: c["annotations"][1].pop("bbox"), "neither a box nor a mask"),
        (lambda c: c["annotations"][1].update(iscrowd=1, segmentation=[]), "there is no mask"),
    ],
)
def test_what_is_broken_stays_refused(coco, tmp_path, edit, sentence):
    change(coco, edit)
    with pytest.raises(UserError, match=sentence):
        prepare_datasets(config(coco, tmp_path / "out"), train=True)


def test_what_is_measured_has_masks(coco, tmp_path):
    with pytest.raises(UserError, match="there is no mask"):
        prepare_datasets(config(coco, tmp_path / "out", test=(coco[0],)), train=True)


def test_a_share_of_the_masks_is_kept(pedestrians):
    register_penn_fudan(pedestrians)
    records = DatasetCatalog.get("penn_fudan_train_a") + DatasetCatalog.get("penn_fudan_train_b")
    before = copy.deepcopy(records)

    def kept(share, seed=0, order=1):
        found = keep_masks(records[::order], share, seed)
        names = {r["file_name"] for r in found if any(has_mask(a) for a in r["annotations"])}
        for record, original in zip(found, records[::order], strict=True):
            assert all(has_mask(a) == (record["file_name"] in names) for a in record["annotations"])
            assert [a["bbox"] for a in record["annotations"]] == [a["bbox"] for a in original["annotations"]]
        return names

    assert [len(kept(share)) for share in (0.0, 0.01, 0.25, 0.5, 1.0)] == [0, 1, 4, 7, 14]
    assert kept(0.25) < kept(0.5) and kept(0.5, order=-1) == kept(0.5) != kept(0.5, seed=1)
    assert records == before


@pytest.mark.parametrize("mode", ["joint", "alternating"])
def test_a_training_resumes_with_the_masks_that_it_remembers(tiny_cfg, coco, tmp_path, mode):
    cfg = tiny_cfg
    cfg.OUTPUT_DIR, cfg.MODEL.ROI_HEADS.NUM_CLASSES = str(tmp_path / "run"), 1
    cfg.DATASETS.COCO_JSON, cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (coco,), (coco[0],), ()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = (64,), (), 0
    cfg.MODEL.GAN.MODE, cfg.MODEL.GAN.MASK.BOX_ONLY, cfg.MODEL.GAN.MASK.MEMORY = mode, True, 24
    cfg.MODEL.GAN.MASK.DISCRIMINATOR, cfg.MODEL.GAN.MASK.CHANNELS = "MaskedImageDiscriminator", (8, 8)
    cfg.MODEL.GAN.UNPAIRED.PROJECTION_WEIGHT = cfg.MODEL.GAN.UNPAIRED.PAIRWISE_WEIGHT = 1.0
    cfg.MODEL.GAN.UNPAIRED.TEACHER_WEIGHT, cfg.MODEL.GAN.UNPAIRED.TEACHER_TRUST = 1.0, 0.1
    cfg.MODEL.GAN.EMA.DECAY = 0.9
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 4, 2
    os.makedirs(cfg.OUTPUT_DIR)
    prepare_datasets(cfg, train=True)
    train(cfg)
    whole = load(cfg)
    assert (whole["model"]["adversaries.mask.memory.classes"] == 0).any()
    resumed = cfg.clone()
    resumed.OUTPUT_DIR = str(tmp_path / "resumed")
    os.makedirs(resumed.OUTPUT_DIR)
    shutil.copy(f"{cfg.OUTPUT_DIR}/model_0000001.pth", resumed.OUTPUT_DIR)
    Path(resumed.OUTPUT_DIR, "last_checkpoint").write_text("model_0000001.pth")
    torch.manual_seed(123)
    train(resumed, resume=True)
    assert_same(whole, load(resumed))
    if mode == "alternating":
        return
    # a warm start with a ring of another size begins it anew
    resized = cfg.clone()
    resized.OUTPUT_DIR, resized.MODEL.WEIGHTS, resized.MODEL.GAN.MASK.MEMORY = (
        str(tmp_path),
        f"{cfg.OUTPUT_DIR}/model_final.pth",
        12,
    )
    resized.SOLVER.MAX_ITER = 1
    memory = train(resized).model.adversaries["mask"].memory
    assert len(memory.classes) == 12
    assert torch.equal(memory.classes >= 0, memory.inputs.flatten(1).any(1))
