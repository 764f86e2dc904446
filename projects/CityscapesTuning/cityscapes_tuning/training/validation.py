"""The loss on images that are not trained on: measured, remembered, and what early stopping looks at."""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from gan_plugin.engine.check_config import diverged
from gan_plugin.engine.distributed import preserved_rng
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole
from gan_plugin.modeling.masks_of_some import modes_kept, train_without_updates

from ..data.mapper import Mapper
from .outcome import HISTORY

_SEED = 12345


class EarlyStopped(BaseException):
    """The validation loss has not improved for long enough. Not an error, so TrainerBase logs no traceback."""


class ValidationLoss(HookBase):
    """Measures the detector's losses on validation images every so many iterations, and at the end.

    The model is in training mode, since Detectron2 computes losses there only, but with BatchNorm's statistics fixed,
    without gradients, without augmentation, and with the same random proposals each time: the same weights always get
    the same loss. A discriminator's and the adversarial losses do not count, so that GAN and plain models compare.

    The history is part of the checkpoints, as any hook's state, and is written to `validation.json` as a list of
    {"iteration": finished iterations, "total": sum, "<loss>": value}, values being means over the images.
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Any,
        period: int,
        folder: str,
        *,
        patience: int = 0,
        min_delta: float = 0.0,
        watched: str = "total",
        limit: float = 0.0,
    ) -> None:
        """
        Args:
            model: on its device, perhaps in DistributedDataParallel.
            loader: gives lists of mapped records with instances.
            period: iterations between two measurements; 0 for one at the end.
            folder: for the history.
            patience: measurements without a better one after which training is to end; 0 for never.
            min_delta: how much lower than the best a better one is.
            watched: the loss that patience looks at.
            limit: a total above it has diverged; 0 for none.
        """
        self._model, self._loader, self._period = getattr(model, "module", model), loader, period
        self._path = os.path.join(folder, HISTORY)
        self._patience, self._min_delta, self._watched, self._limit = patience, min_delta, watched, limit
        self.history: list[dict[str, float]] = []

    @property
    def is_exhausted(self) -> bool:
        """Whether the last `patience` measurements were no better than the best before them."""
        best, since = math.inf, 0
        for entry in self.history:
            if entry[self._watched] < best - self._min_delta:
                best, since = entry[self._watched], 0
            else:
                since += 1
        return 0 < self._patience <= since

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period and done % self._period == 0):
            self.measure(done)

    def measure(self, done: int) -> dict[str, float]:
        """Measure after `done` iterations, record the scalars `val_loss/...` and write the history.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite, or their sum beyond the limit.
        """
        try:
            losses = self._losses(done)
        except FloatingPointError as error:
            # Detectron2's region proposals refuse values that are not finite before there is a loss to look at.
            raise diverged(done - 1, f"in validation, {error}") from error
        entry = {"total": sum(losses.values()), **losses}
        if not math.isfinite(entry["total"]):
            raise diverged(done - 1, "the validation loss is not finite")
        if 0 < self._limit < entry["total"]:
            raise diverged(done - 1, f"the validation loss has exploded, to {entry['total']:.4g}")
        self.history.append({"iteration": done, **entry})
        self.trainer.storage.put_scalars(smoothing_hint=False, **{f"val_loss/{k}": v for k, v in entry.items()})
        self._write()
        return entry

    def _losses(self, done: int) -> dict[str, float]:
        sums: dict[str, float] = {}
        count = 0
        with preserved_rng(seed=_SEED), EventStorage(done - 1), modes_kept(self._model), torch.no_grad():
            train_without_updates(self._model)
            for batch in self._loader:
                for name, value in detector_losses(self._model, batch).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
                count += len(batch)
        gathered = comm.all_gather((sums, count))
        total = sum(number for _, number in gathered)
        if not total:
            raise UserError("TUNING.VAL.DATASETS hold no image, so there is no validation loss; name another set.")
        return {name: sum(part.get(name, 0.0) for part, _ in gathered) / total for name in sums}

    def _write(self) -> None:
        if comm.is_main_process():
            text = json.dumps(self.history)
            write_whole(self._path, text, "Free some disk space and --resume.")

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = list(state["history"])


class EarlyStop(HookBase):
    """Ends training by EarlyStopped once the validation loss is exhausted; the last hook, so all has been written."""

    def __init__(self, validation: ValidationLoss) -> None:
        self._validation = validation

    def after_step(self) -> None:
        if self._validation.is_exhausted:
            raise EarlyStopped


def detector_losses(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The training losses of a Mask R-CNN, without those of an adversary that it may have."""
    if len(getattr(model, "adversaries", ())):
        return model.generator_forward(batch)[0]  # type: ignore[operator]
    return model(batch)


def validation_loader(names: Sequence[str], images: int, mapper: Mapper, num_workers: int) -> Any:
    """Batches of one image with its truth, images without instances included.

    Args:
        names: registered data sets.
        images: how many of all, spread evenly; 0 for all.
        mapper: of records.
        num_workers: processes that load.
    """
    records = get_detection_dataset_dicts(list(names), filter_empty=False)
    if 0 < images < len(records):
        records = [records[i * len(records) // images] for i in range(images)]
    return build_detection_test_loader(records, mapper=mapper, num_workers=num_workers)
