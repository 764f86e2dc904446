"""What every phase's plan needs to know: the study, its data, and how a trial's settings come together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.register import dataset_name
from .study import LR, MOMENTUM, WEIGHT_DECAY, Settings, Study

TRIALS, DATA, CONFIG = "trials", "data", "config.yaml"
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
