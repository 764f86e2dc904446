"""The recipes of docs/extending.md, as they stand there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from PIL import Image
from small_models import build, losses_of, small

from gan_plugin import AdversarialTrainer
from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.modeling import DISCRIMINATOR_REGISTRY, OBJECTIVE_REGISTRY, PRESENTER_REGISTRY
from gan_plugin.modeling.presenters import POLICIES

TEXT = (Path(__file__).resolve().parents[1] / "docs/extending.md").read_text(encoding="utf-8")
REGISTRIES = (OBJECTIVE_REGISTRY, DISCRIMINATOR_REGISTRY, PRESENTER_REGISTRY, ROI_MASK_HEAD_REGISTRY, BACKBONE_REGISTRY)


def run_recipe(title):
    """Execute the code below a heading; the names that it defines."""
    section = re.search(rf"\n## {title}\n(.*?)(?=\n## |\Z)", TEXT, re.DOTALL).group(1)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {"__name__": "recipe"}
    exec(code, names)
    return names


@pytest.fixture(autouse=True)
def clean():
    """Registries as they were, after the test."""
    before = [dict(registry._obj_map) for registry in REGISTRIES]
    policies = dict(POLICIES)
    yield
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry._obj_map.clear()
        registry._obj_map.update(entries)
    POLICIES.clear()
    POLICIES.update(policies)
    if "discs_train" in DatasetCatalog:
        DatasetCatalog.remove("discs_train")
        MetadataCatalog.pop("discs_train")


def test_there_are_eight():
    assert len(re.findall(r"^## ", TEXT, re.MULTILINE)) == len(re.findall(r"^```python", TEXT, re.MULTILINE)) == 8


@pytest.mark.parametrize(
    "title, keys",
    [
        ("An objective", {"MODEL.GAN.MASK.OBJECTIVE": "Logistic"}),
        ("A discriminator", {"MODEL.GAN.MASK.DISCRIMINATOR": "ThreeLayers"}),
        ("An augmentation", {"MODEL.GAN.DIFFAUG": "translation,shade"}),
        ("A head", {"MODEL.ROI_MASK_HEAD.NAME": "TinyMaskHead"}),
        ("A head", {"MODEL.ROI_MASK_HEAD.NAME": "TinyMaskHead", "MODEL.GAN.MASK.LOGITS": "mask_head.draw"}),
        ("A backbone", {"MODEL.BACKBONE.NAME": "build_strided"}),
    ],
)
def test_what_is_registered_trains(title, keys, tiny_cfg, inputs):
    names = run_recipe(title)
    model = build(small(tiny_cfg, keys))
    losses = losses_of(model, inputs)
    sum(losses.values()).backward()
    for part in (model.roi_heads.mask_head, model.adversaries["mask"].discriminator):
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in part.parameters())
    if title == "A discriminator":
        # half of the config's side, and its own four tensors
        assert type(model.adversaries["mask"].discriminator) is names["ThreeLayers"]
        shown = model.adversaries["mask"].presenter
        assert (type(shown), shown.size) == (names["CoarseMasks"], tiny_cfg.MODEL.GAN.MASK.INPUT_SIZE // 2)


def test_the_data_set_is_found_and_examined(tiny_cfg, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(tmp_path / "disc.png")
    monkeypatch.chdir(tmp_path)
    run_recipe("A data set")
    tiny_cfg.DATASETS.TRAIN, tiny_cfg.DATASETS.TEST = ("discs_train",), ()
    tiny_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    prepare_datasets(tiny_cfg, train=True)
    (batch,) = next(iter(AdversarialTrainer.build_train_loader(small(tiny_cfg, {"SOLVER.IMS_PER_BATCH": 1}))))
    assert len(batch["instances"]) == 1


def test_metric_and_scalar_reach_the_metrics(run_cfg, tmp_path):
    metric, scalar = run_recipe("A metric"), run_recipe("A scalar")
    run_cfg.DATASETS.TEST = ("penn_fudan_val",)
    run_cfg.TEST.EVAL_PERIOD = 0
    trainer = metric["Trainer"](run_cfg)
    trainer.register_hooks([scalar["WeightOfTheVerdict"]()])
    assert isinstance(metric["Trainer"].build_evaluator(run_cfg, "penn_fudan_val"), DatasetEvaluators)
    trainer.train()
    lines = [json.loads(line) for line in (Path(run_cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    merged = {key: value for line in lines for key, value in line.items()}
    assert merged["area/mean"] >= 0
    assert merged["mine/verdict"] > 0 and merged["gan/mask/balance"] > 0
