"""The trainer of a trial: gan_plugin's, with a study's keys."""

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from gan_plugin import AdversarialTrainer
from gan_plugin.engine.checkpoint import BEST, SafeCheckpointer, checkpoint_file
from gan_plugin.engine.distributed import StopOnSignal
from gan_plugin.engine.train_loader import ResumableTrainLoader, build_resumable_train_loader
from gan_plugin.engine.writers import finite_metrics, log_results
from gan_plugin.files import write_whole

from ..data.mapper import training_mapper, validation_mapper
from .model_parts import class_names, freeze, remap_heads
from .outcome import LR_RANGE
from .validation import EarlyStop, ValidationLoss, validation_loader


class RemappingCheckpointer(SafeCheckpointer):
    """SafeCheckpointer that can carry heads over to other classes when it loads initial weights."""

    # (names of the weights' classes, names of the model's); None to load as they are
    classes: tuple[list[str], list[str]] | None = None

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        if self.classes is not None:
            weights = {name: torch.as_tensor(value) for name, value in checkpoint["model"].items()}
            checkpoint["model"] = remap_heads(weights, self.model.state_dict(), *self.classes)
        return super()._load_model(checkpoint)


class TuningTrainer(AdversarialTrainer):
    """AdversarialTrainer with validation loss, early stopping, frozen parts, crops, mini-masks and remapped heads.

    Works with MODEL.GAN.ENABLED True and False. `train` raises EarlyStopped when TUNING.VAL.PATIENCE is used up.
    """

    checkpointer_class = RemappingCheckpointer
    validation: ValidationLoss

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Detectron2's model without gradients for what TUNING.FREEZE names."""
        model = super().build_model(cfg)
        freeze(model, cfg.TUNING.FREEZE)
        return model

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> ResumableTrainLoader:
        """gan_plugin's resumable loader with the study's mapper."""
        return build_resumable_train_loader(cfg, training_mapper(cfg))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> Any:
        """The schedule of SOLVER, laid out for TUNING.SCHEDULE_ITERS, or the exponential ramp of an LR-range check."""
        span = cfg.TUNING.LR_RANGE
        if span.LOW > 0:
            steps = max(1, cfg.SOLVER.MAX_ITER - 1)
            return LambdaLR(optimizer, lambda step: (span.HIGH / span.LOW) ** (min(step, steps) / steps))
        if cfg.TUNING.SCHEDULE_ITERS:
            # A trial that is promoted trains on under the schedule it began with.
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SOLVER.MAX_ITER = cfg.TUNING.SCHEDULE_ITERS
        return super().build_lr_scheduler(cfg, optimizer)

    def build_hooks(self) -> list[Any]:
        """AdversarialTrainer's hooks and the study's.

        The validation comes before the checkpoint, which then holds its result, and before the best checkpoint, which
        is chosen by it; early stopping comes last, when everything has been written.
        """
        ret = super().build_hooks()
        for hook in ret:
            if isinstance(hook, hooks.PeriodicCheckpointer):
                # A study has many trials: the last checkpoint is enough to continue from.
                hook.max_to_keep = 1
        val = self.cfg.TUNING.VAL
        if val.DATASETS:
            loader = validation_loader(
                val.DATASETS, val.IMAGES, validation_mapper(self.cfg), self.cfg.DATALOADER.NUM_WORKERS
            )
            self.validation = ValidationLoss(
                self.model, loader, val.PERIOD, self.cfg.OUTPUT_DIR, patience=val.PATIENCE, min_delta=val.MIN_DELTA,
                watched=val.LOSS, limit=val.LIMIT,
            )  # fmt: skip
            saves = (hooks.PeriodicCheckpointer, StopOnSignal)
            ret.insert(next(i for i, hook in enumerate(ret) if isinstance(hook, saves)), self.validation)
            ret.append(EarlyStop(self.validation))
        if self.cfg.TUNING.LR_RANGE.LOW > 0 and comm.is_main_process():
            ret.insert(0, LRRangeLog(self.cfg.OUTPUT_DIR))
        return ret

    def resume_or_load(self, resume: bool = True) -> None:
        """As DefaultTrainer; heads of initial weights are carried over as TUNING.SOURCE_CLASSES says."""
        source = class_names(self.cfg.TUNING.SOURCE_CLASSES)
        if source and not (resume and self.checkpointer.has_checkpoint()):
            target = list(MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0]).thing_classes)
            self.checkpointer.classes = (source, target)
        try:
            super().resume_or_load(resume)
        finally:
            self.checkpointer.classes = None

    def test_best(self) -> dict[str, float]:
        """Evaluate the best weights, or the last where no best ones are kept, on TUNING.TEST.

        Returns:
            Flat metrics in percent; {} on other processes than the main one.
        """
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATASETS.TEST = tuple(cfg.TUNING.TEST)
        best = checkpoint_file(cfg.OUTPUT_DIR, BEST)
        if cfg.TEST.BEST_METRIC and best.is_file():
            SafeCheckpointer(self.model).load(str(best), checkpointables=[])
        results: Mapping[str, Any] = self.test(cfg, self.model)
        if not comm.is_main_process():
            return {}
        log_results(results)
        return finite_metrics(results)


class LRRangeLog(HookBase):
    """Writes the learning rate and the loss of every iteration to `lr_range.json`, also when the run diverges."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, LR_RANGE)
        self._rates: list[float] = []
        self._losses: list[float] = []

    def after_step(self) -> None:
        latest = self.trainer.storage.latest()
        key = "loss_gen_total" if "loss_gen_total" in latest else "total_loss"
        self._rates.append(self.trainer.optimizer.param_groups[0]["lr"])
        self._losses.append(latest[key][0])

    def after_train(self) -> None:
        content = json.dumps({"lr": self._rates, "loss": self._losses}).encode()
        write_whole(self._path, content, "Free some disk space and resume the study.")

    def state_dict(self) -> dict[str, Any]:
        return {"rates": self._rates, "losses": self._losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rates, self._losses = list(state["rates"]), list(state["losses"])
