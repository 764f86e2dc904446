"""Keeps the weights of the best evaluation."""

import json
import logging
import math
import os

from detectron2.engine import HookBase

from gan_plugin.files import write_whole

from ..checkpoint import BEST_PREFIX, SafeCheckpointer
from .ema import GeneratorEMA

_logger = logging.getLogger(__name__)


class BestCheckpoint(HookBase):
    """Saves `model_best.pth` whenever an evaluation beats all before it, and its score in `model_best.json`.

    A run may keep several, each under its own name, since scores may disagree.

    The score is read from that file when a run resumes. Detectron2's BestCheckpointer forgets it, and makes its file
    the one that `--resume` continues from.
    """

    def __init__(
        self,
        checkpointer: SafeCheckpointer,
        metric: str,
        ema: GeneratorEMA | None = None,
        *,
        label: str = "",
        smaller_is_better: bool = False,
    ) -> None:
        """
        Args:
            checkpointer: writes the file.
            metric: name of a scalar that evaluation records, such as "segm/AP".
            ema: whose weights are saved where `metric` is one of its own ("ema/...").
            label: of this score in the names of its files, such as "fid" for `model_best_fid.pth`.
            smaller_is_better: whether the best score is the smallest.
        """
        self._checkpointer = checkpointer
        self._metric = metric
        self._ema = ema
        self._name = f"{BEST_PREFIX}_{label}" if label else BEST_PREFIX
        self._record = os.path.join(checkpointer.save_dir, f"{self._name}.json")
        self._sign = -1 if smaller_is_better else 1
        self._best = -self._sign * math.inf
        self._judged = -1

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and os.path.exists(self._record):
            try:
                with open(self._record, encoding="utf-8") as file:
                    record = json.load(file)
                if record["metric"] == self._metric:
                    self._best = float(record["value"])
            except (OSError, ValueError, KeyError, TypeError):
                _logger.warning(f"{self._record} cannot be read; the next evaluation counts as the best so far.")

    def after_step(self) -> None:
        value, iteration = self.trainer.storage.latest().get(self._metric, (math.nan, self._judged))
        if iteration == self._judged:
            return
        self._judged = iteration
        if self._sign * value > self._sign * self._best:
            self._best = value
            _logger.info(f"Best {self._metric} so far: {value:.3f} at iteration {iteration}.")
            if self._ema is not None and self._metric.startswith("ema/"):
                self._checkpointer.save_weights(self._name, self._ema.generator_state())
            else:
                self._checkpointer.save(self._name, iteration=iteration)
            record = json.dumps({"metric": self._metric, "value": value, "iteration": iteration})
            write_whole(self._record, lambda file: file.write(record.encode()), "Free some disk space and --resume.")

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self.after_step()
            if self._judged < 0:
                _logger.warning(f"No evaluation gave {self._metric}; check TEST.BEST_METRIC.")
