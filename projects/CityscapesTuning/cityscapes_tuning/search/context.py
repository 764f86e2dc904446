"""What every phase's plan needs to know: the study, its data, and how a trial's settings come together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import torch

from gan_plugin.comparison.run import key_values
from gan_plugin.config_files import look_up, read_yaml
from gan_plugin.engine.provenance import commit, versions

from ..data.register import dataset_name
from ..training.outcome import weights_of
from .study import LR, MOMENTUM, WEIGHT_DECAY, Settings, Study
from .table import Row

TRIALS, DATA, CONFIG, PLANNING = "trials", "data", "config.yaml", ".planning"
SMALLEST_SIDE = 64
_SHRINK = 0.75
# what measures the objectives that are not measured anyway
_EVALUATORS: dict[str, Settings] = {
    "per_image": {"TEST.PER_IMAGE_AP": True},
    "truth_boxes": {"TEST.TRUTH_BOXES": True},
    "boundary": {"TEST.BOUNDARY_AP": True, "TEST.COCO_EVALUATOR": "faster"},
}


@dataclass(frozen=True)
class Context:
    """A study that has been set up in a folder.

    Attributes:
        study: what is to be done.
        folder: the study's own.
        images: part -> number of images.
        classes: their names.
        batch: images of an iteration, by the study's config and settings.
        optimizer: the config's SOLVER.OPTIMIZER, where settings name none.
    """

    study: Study
    folder: Path
    images: Mapping[str, int]
    classes: tuple[str, ...]
    batch: int
    optimizer: str

    def epoch(self, part: str) -> int:
        """Iterations of an epoch on a part."""
        return self.study.epoch_iterations or math.ceil(self.images[part] / self.batch)

    def iterations(self, part: str, epochs: float) -> int:
        """`epochs`, which may be a fraction, in whole iterations; at least one."""
        return max(1, round(self.epoch(part) * epochs))

    def trial_folder(self, name: str) -> Path:
        """The folder of the trial "phase/key"."""
        return self.folder / TRIALS / name

    def settings(self, *layers: Settings, train: str, val: str, iterations: int) -> Settings:
        """The config keys of a trial: the study's, then those of every layer, then what the study rules.

        Args:
            layers: later ones go over earlier ones; "lr", "momentum" and "weight_decay" are understood.
            train, val: parts of the data.
            iterations: of the whole schedule.
        """
        study, epoch = self.study, self.epoch(train)
        merged: Settings = {
            "INPUT.MASK_FORMAT": "bitmask",
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
            "SOLVER.STEPS": [],
            "SOLVER.WARMUP_ITERS": 0,
            "SEED": study.seed,
            "TUNING.VAL.IMAGES": study.val_images,
            "SOLVER.CHECKPOINT_PERIOD": epoch,
            "TUNING.VAL.PERIOD": epoch,
        }
        every = (study.settings, *layers)
        named = [layer["SOLVER.OPTIMIZER"] for layer in every if "SOLVER.OPTIMIZER" in layer]
        for layer in every:
            merged.update(solver_settings(layer, [self.optimizer, *named][-1]))
        ruled: Settings = {
            "TUNING.DATA": DATA,
            "DATASETS.TRAIN": [dataset_name(train)],
            "DATASETS.TEST": [],
            "TEST.EVAL_PERIOD": 0,
            "TUNING.VAL.DATASETS": [dataset_name(val)],
            "TUNING.SCHEDULE_ITERS": iterations,
            "TUNING.MEMORY_GB": study.budget.memory_gb,
            "MODEL.ROI_HEADS.NUM_CLASSES": len(self.classes),
        }
        if not study.objective.is_loss:
            ruled["TUNING.TEST"] = [dataset_name(val)]
            ruled |= _EVALUATORS.get(study.objective.metric.partition("/")[0], {})
        if study.objective.loss != "total":
            ruled["TUNING.VAL.LOSS"] = study.objective.loss
        merged.update(ruled)
        if str(merged.get("MODEL.WEIGHTS", "")).startswith("@"):
            # A trial's weights are of the study's own classes.
            merged["TUNING.SOURCE_CLASSES"] = ""
        return merged


def solver_settings(settings: Settings, optimizer: str) -> Settings:
    """`settings` with the study's short names as config keys: Adam's momentum is its beta 1."""
    named = {key: value for key, value in settings.items() if key not in (LR, MOMENTUM, WEIGHT_DECAY)}
    if LR in settings:
        named["SOLVER.BASE_LR"] = settings[LR]
    if WEIGHT_DECAY in settings:
        named["SOLVER.WEIGHT_DECAY"] = settings[WEIGHT_DECAY]
    if MOMENTUM in settings:
        momentum: Any = settings[MOMENTUM]
        named.update(
            {"SOLVER.MOMENTUM": momentum} if optimizer.lower() == "sgd" else {"SOLVER.BETAS": [momentum, 0.999]}
        )
    return named


def arguments_of(context: Context, row: Row) -> list[str]:
    """What the training tool is told to train `row` until its target, on from its last checkpoint if it has one."""
    folder = context.trial_folder(row.name)
    settings: dict[str, Any] = dict(row.settings)
    for key, value in settings.items():
        if isinstance(value, str) and value.startswith("@"):
            settings[key] = str(weights_of(context.trial_folder(value[1:])))
    settings["OUTPUT_DIR"] = str(folder)
    settings["TUNING.DATA"] = str(context.folder / settings["TUNING.DATA"])
    settings["SOLVER.MAX_ITER"] = row.iterations
    flags = ["--resume"] if folder.exists() else []
    if context.study.gpus_per_trial > 1:
        flags += ["--num-gpus", str(context.study.gpus_per_trial)]
    return ["--config-file", str(context.folder / CONFIG), *flags, *key_values(settings)]


def shrunk(settings: dict[str, Any], config: Path) -> tuple[dict[str, Any], str] | None:
    """Settings to try after an out-of-memory error, and what they change in words; None if nothing is left to try.

    First half the batch with twice the accumulation, which keeps the step's gradient; at batch 1 three quarters of the
    training images' size.

    Args:
        settings: of the trial.
        config: the YAML file that they go over.
    """
    base = read_yaml(config.read_bytes(), f"The config {config}")

    def value(key: str) -> Any:
        return settings[key] if key in settings else look_up(base, key)

    batch = value("SOLVER.IMS_PER_BATCH")
    alternating = value("MODEL.GAN.ENABLED") and value("MODEL.GAN.MODE") == "alternating"
    if batch > 1 and batch % 2 == 0 and not alternating:
        accumulate = 2 * (value("SOLVER.ACCUMULATE") or 1)
        change = {"SOLVER.IMS_PER_BATCH": batch // 2, "SOLVER.ACCUMULATE": accumulate}
        return change, f"batches of {batch // 2}, {accumulate} of them a step"
    sides = [max(SMALLEST_SIDE, round(side * _SHRINK)) for side in value("INPUT.MIN_SIZE_TRAIN")]
    longest = round(value("INPUT.MAX_SIZE_TRAIN") * _SHRINK)
    if sides == list(value("INPUT.MIN_SIZE_TRAIN")):
        return None
    return {"INPUT.MIN_SIZE_TRAIN": sides, "INPUT.MAX_SIZE_TRAIN": longest}, f"images of {sides[0]} pixels"


def batch_of(settings: dict[str, Any], config_text: str) -> tuple[int, str]:
    """Images of a step, and the optimizer, by the settings over the config's YAML text."""
    base = read_yaml(config_text, "The config of the study")
    images = settings.get("SOLVER.IMS_PER_BATCH", look_up(base, "SOLVER.IMS_PER_BATCH"))
    accumulate = settings.get("SOLVER.ACCUMULATE", look_up(base, "SOLVER.ACCUMULATE"))
    optimizer = settings.get("SOLVER.OPTIMIZER", look_up(base, "SOLVER.OPTIMIZER"))
    return int(images) * int(accumulate or 1), str(optimizer)


@cache
def environment() -> dict[str, str]:
    """Versions, the device, and the commit of this repository, "unknown" outside of one."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {**versions(), "optuna": optuna.__version__, "device": device, "commit": commit(__file__)}
