"""What pictures need of a run: its test sets, its predictions, and its model with both players."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from gan_plugin.config import add_gan_config
from gan_plugin.config_files import read_yaml
from gan_plugin.data.builtin import prepare_datasets
from gan_plugin.engine.checkpoint import FINAL, SafeCheckpointer, checkpoint_file
from gan_plugin.engine.run_dir import CONFIG
from gan_plugin.engine.setup import load_config
from gan_plugin.engine.trainer import AdversarialTrainer
from gan_plugin.errors import UserError

from .panels import Instance, instance_from_mask, read_predictions

_RESULTS = "coco_instances_results.json"


def read_config(folder: Path) -> tuple[dict[str, Any], list[str], str]:
    """The config of a run as nested dicts, the test sets that could be made ready, and what went wrong, a sentence."""
    file = folder / CONFIG
    if not file.is_file():
        return {}, [], "The run left no config.yaml, so its settings and its test set are unknown."
    cfg = get_cfg()
    add_gan_config(cfg)
    try:
        config = read_yaml(file.read_bytes(), f"The config {file}")
        # only this node: a project's own keys elsewhere are none of our business
        cfg.DATASETS.merge_from_other_cfg(CfgNode(config["DATASETS"]))
        # what decides over repairs, and where the run has put them
        cfg.MODEL.MASK_ON, cfg.OUTPUT_DIR = bool(config["MODEL"]["MASK_ON"]), str(folder)
    except UserError as error:
        return {}, [], str(error)
    except (KeyError, TypeError, ValueError, AssertionError, AttributeError, OSError) as error:
        return {}, [], f"config.yaml cannot be read ({type(error).__name__})."
    try:
        prepare_datasets(cfg, train=False, compare=False)
    except UserError as error:
        return config, [], f"The test set is not available, so no images are shown: {error}"
    return config, list(cfg.DATASETS.TEST), ""


def results_file(folder: Path, name: str, *, several: bool) -> Path:
    """Where a run's evaluation leaves its predictions of the test set `name`, one of `several` or the only one."""
    return folder / "inference" / (name if several else "") / _RESULTS


def stored_predictions(
    folder: Path, name: str, records: Sequence[Mapping[str, Any]], *, several: bool = False
) -> dict[Any, list[Instance]]:
    """Predicted masks by image_id, from the file that the evaluation left.

    Args:
        folder: OUTPUT_DIR of the run.
        name: of the test set.
        records: its images, as Detectron2 has loaded them.
        several: whether the run has several test sets.

    Raises:
        OSError, ValueError, KeyError or TypeError: it is missing, not what COCOEvaluator writes for masks, or about
            other images.
    """
    classes: Mapping[Any, int] = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id") or {}
    found = read_predictions(results_file(folder, name, several=several), classes)
    sizes = {record["image_id"]: [record["height"], record["width"]] for record in records}
    for image, instances in found.items():
        if any(instance.rle["size"] != sizes.get(image) for instance in instances):
            raise ValueError(f"it has masks of another image than {image!r} of {name}")
    return found


def predictions_of(folder: Path, name: str, records: Sequence[Mapping[str, Any]]) -> dict[Any, list[Instance]]:
    """Predicted masks of the test set `name` by image_id: those that the evaluation left, or the model's anew.

    Args:
        folder, name, records: as in `stored_predictions`.

    Raises:
        UserError: the run has neither.
    """
    for several in (False, True):
        if results_file(folder, name, several=several).is_file():
            try:
                return stored_predictions(folder, name, records, several=several)
            except (OSError, ValueError, KeyError, TypeError):
                # cut off, boxes alone, or of other images: the model will tell
                break
    try:
        cfg, model = load_run(folder)
    except UserError as error:
        raise UserError(f"{folder} holds no predictions of {name}, and its model cannot make them: {error}") from error
    return _predict(cfg, model, name)


def _predict(cfg: CfgNode, model: torch.nn.Module, name: str) -> dict[Any, list[Instance]]:
    found: dict[Any, list[Instance]] = {}
    model.eval()
    for batch in AdversarialTrainer.build_test_loader(cfg, name):
        with torch.no_grad():
            outputs = model(batch)
        for record, output in zip(batch, outputs, strict=True):
            instances = output["instances"].to("cpu")
            if not instances.has("pred_masks"):
                raise UserError(f"The model of {cfg.OUTPUT_DIR} predicts no masks, so there are none to compare.")
            parts = zip(instances.pred_masks, instances.pred_classes.tolist(), instances.scores.tolist(), strict=True)
            found[record["image_id"]] = [instance_from_mask(mask.numpy(), *rest) for mask, *rest in parts]
    return found


def load_run(folder: Path) -> tuple[CfgNode, torch.nn.Module]:
    """The config of a finished run and its model with the final weights of both players.

    Raises:
        UserError: config.yaml or model_final.pth is missing, or not ours to read.
    """
    weights = checkpoint_file(folder, FINAL)
    for file in (folder / CONFIG, weights):
        if not file.is_file():
            raise UserError(f"{file} is missing; let the run come to its end.")
    cfg = load_config(argparse.Namespace(config_file=str(folder / CONFIG), opts=[]))
    model = build_model(cfg)
    SafeCheckpointer(model, save_to_disk=False).load(str(weights))
    return cfg, model
