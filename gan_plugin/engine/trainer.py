"""Detectron2's DefaultTrainer for two players."""

import logging
import os
import weakref
from collections import OrderedDict
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.engine import DefaultTrainer, TrainerBase, create_ddp_model, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from gan_plugin.config import check_choice
from gan_plugin.data.checks import CheckedDatasetMapper
from gan_plugin.evaluation.build import build_evaluator
from gan_plugin.modeling.meta_arch import discriminator_parameters

from .check_config import check_values
from .checkpoint import SafeCheckpointer
from .distributed import share_weights
from .guard import NonFiniteLossError, diverged, quiet_user_errors, refuse_unsupported
from .hooks import (
    BestCheckpoint,
    DiscriminatorLRScheduler,
    Evaluation,
    GeneratorEMA,
    JointLRScheduler,
    StopOnSignal,
)
from .optimizers import build_discriminator_optimizer, build_discriminator_scheduler, build_generator_optimizer
from .results import finite_metrics, log_results
from .rng import capture_rng_state, restore_rng_state
from .steps import AlternatingStep, JointStep
from .train_loader import ResumableTrainLoader, build_resumable_train_loader
from .writers import GamePrinter, SamplePictureWriter

_logger = logging.getLogger(__name__)
_FINAL = "model_final"
_AVERAGE = "model_final_ema"


class AdversarialTrainer(DefaultTrainer):
    """Trains an AdversarialRCNN in the mode that `MODEL.GAN.MODE` names, and any other Detectron2 model as usual.

    What it adds to DefaultTrainer: the alternating mode with its second optimizer and schedule, an exact `resume`
    (both players, optimizers, schedules, averages, random states and the position in the data), checkpoints that are
    whole or absent, the moving average, sample pictures, the best checkpoint, and a clean end on a signal.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: a config with the plugin's keys (`add_gan_config`).

        Raises:
            UserError: a key has an unknown value, or two of them exclude each other.
        """
        # DefaultTrainer's constructor builds one optimizer over everything; what it does else is done here.
        TrainerBase.__init__(self)
        check_values(cfg)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        refuse_unsupported(cfg, model)
        self._ema = GeneratorEMA(model, cfg.MODEL.GAN.EMA.DECAY) if cfg.MODEL.GAN.EMA.DECAY > 0 else None
        self._trainer = self._build_step(cfg, model)
        self.scheduler = self.build_lr_scheduler(cfg, self._trainer.optimizer)
        self.checkpointer = SafeCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self._stop = StopOnSignal(self.checkpointer)
        self._rng_state: dict[str, Any] | None = None
        self._resumes_exactly = isinstance(self.data_loader, ResumableTrainLoader)
        if not self._resumes_exactly:
            _logger.warning("The training loader is not a ResumableTrainLoader: --resume will start its data anew.")
        self.register_hooks(self.build_hooks())

    def _build_step(self, cfg: CfgNode, model: nn.Module) -> JointStep | AlternatingStep:
        loader = self.build_train_loader(cfg)
        options = {"accumulate": cfg.SOLVER.ACCUMULATE, "amp": cfg.SOLVER.AMP.ENABLED}
        if cfg.MODEL.GAN.ENABLED and cfg.MODEL.GAN.MODE == "alternating":
            players = discriminator_parameters(model)
            optimizer = build_generator_optimizer(cfg, model, exclude=players)
            disc_optimizer = build_discriminator_optimizer(cfg, players)
            order = check_choice("MODEL.GAN.ORDER", cfg.MODEL.GAN.ORDER)
            share_weights(model)
            return AlternatingStep(model, loader, optimizer, disc_optimizer, order, cfg.MODEL.GAN.DISC_STEPS, **options)
        optimizer = self.build_optimizer(cfg, model)
        # On a CPU there is no device to name, and Detectron2 would name one.
        devices = {"device_ids": None} if cfg.MODEL.DEVICE == "cpu" else {}
        return JointStep(create_ddp_model(model, broadcast_buffers=False, **devices), loader, optimizer, **options)

    def build_hooks(self) -> list[Any]:
        """The hooks, in this order for these reasons.

        Schedules and the average first: a checkpoint of iteration i must hold what iteration i + 1 starts with.
        Checkpoint before evaluation: what fails there has been saved. A signal is answered after the checkpoint's turn
        and before a long evaluation. The best checkpoint needs the evaluation's result, the writers everyone's.
        """
        cfg = self.cfg
        ret = [hooks.IterationTimer(), *self._schedule_hooks(), self._ema, self._precise_bn()]
        if comm.is_main_process():
            ret.append(hooks.PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        ret.append(self._stop)
        ret.append(Evaluation(cfg.TEST.EVAL_PERIOD, self._evaluate, self._stop, bool(cfg.DATASETS.TEST)))
        if comm.is_main_process():
            if cfg.TEST.BEST_METRIC:
                ret.append(BestCheckpoint(self.checkpointer, cfg.TEST.BEST_METRIC, self._ema))
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=20))
        return [hook for hook in ret if hook is not None]

    def _schedule_hooks(self) -> list[hooks.LRScheduler]:
        if isinstance(self._trainer, AlternatingStep):
            disc = self._trainer.disc_optimizer
            return [hooks.LRScheduler(), DiscriminatorLRScheduler(disc, build_discriminator_scheduler(self.cfg, disc))]
        if discriminator_parameters(self.model):
            # Adam's steps do not depend on the size of the gradients, which is what the factor scales.
            scales = self.cfg.SOLVER.OPTIMIZER == "sgd"
            return [JointLRScheduler(self.cfg.MODEL.GAN.DISC_LR_FACTOR if scales else 1.0)]
        return [hooks.LRScheduler()]

    def _precise_bn(self) -> hooks.PreciseBN | None:
        if not (self.cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model)):
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        loader = self.build_train_loader(cfg)
        return hooks.PreciseBN(self.cfg.TEST.EVAL_PERIOD, self.model, loader, self.cfg.TEST.PRECISE_BN.NUM_ITER)

    def build_writers(self) -> list[EventWriter]:
        """Detectron2's console, JSON and TensorBoard writers, and ours for the game."""
        pictures = SamplePictureWriter(os.path.join(self.cfg.OUTPUT_DIR, "samples"))
        return [pictures, *super().build_writers(), GamePrinter()]

    def before_train(self) -> None:
        super().before_train()
        if self._rng_state is not None:
            # The checkpoint has the first process' state only; the others must not draw the same numbers.
            if comm.is_main_process():
                restore_rng_state(self._rng_state)
            else:
                seed_all_rng((self.start_iter + 1) * comm.get_world_size() + comm.get_rank())
            self._rng_state = None

    def after_train(self) -> None:
        try:
            if self._ema is not None and self.iter >= self.max_iter and comm.is_main_process():
                self.checkpointer.save_weights(_AVERAGE, self._ema.generator_state())
            super().after_train()
        finally:
            self._stop.restore()

    def train(self) -> OrderedDict | None:
        """Train from `start_iter` to `SOLVER.MAX_ITER`; returns the last evaluation's results, if any."""
        if self.start_iter >= self.max_iter:
            final = os.path.join(self.cfg.OUTPUT_DIR, f"{_FINAL}.pth")
            _logger.info(
                f"The run in {self.cfg.OUTPUT_DIR} has its {self.max_iter} iterations: nothing left to train. "
                f"Evaluate it with --eval-only MODEL.WEIGHTS {final}."
            )
            self._write_lost_files()
            return None
        with quiet_user_errors():
            super().train()
        return getattr(self, "_last_eval_results", None)

    def _write_lost_files(self) -> None:
        # A run may be killed after its last periodic checkpoint, which holds all of them, and before the last of these.
        if self.start_iter > self.max_iter or not comm.is_main_process():
            return
        present = os.listdir(self.cfg.OUTPUT_DIR)
        if f"{_FINAL}.pth" not in present:
            if self._rng_state is not None:
                restore_rng_state(self._rng_state)
            self.checkpointer.save(_FINAL, iteration=self.iter)
        if self._ema is not None and f"{_AVERAGE}.pth" not in present:
            self.checkpointer.save_weights(_AVERAGE, self._ema.generator_state())

    def run_step(self) -> None:
        try:
            super().run_step()
        except NonFiniteLossError:
            raise
        except FloatingPointError as error:
            # Detectron2's region proposals refuse values that are not finite before there is a loss to look at.
            raise diverged(self.iter, str(error)) from error

    def state_dict(self) -> dict[str, Any]:
        data = self.data_loader.state_dict() if self._resumes_exactly else None
        return {**super().state_dict(), "rng": capture_rng_state(), "data": data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self._resumes_exactly and state_dict["data"] is not None:
            first = (self.iter + 1) * self.cfg.SOLVER.ACCUMULATE
            self.data_loader.load_state_dict(state_dict["data"], first_batch=first)
        self._rng_state = state_dict["rng"]

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        """The optimizer over everything that `SOLVER.OPTIMIZER` names; in alternating mode each player has its own."""
        return build_generator_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> ResumableTrainLoader:
        """Batches that depend on seed and iteration alone."""
        return build_resumable_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Detectron2's loader behind our checks on every file it opens."""
        mapper = CheckedDatasetMapper(DatasetMapper(cfg, is_train=False))
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The official evaluators of the data set, writing to OUTPUT_DIR/inference[/<data set>, if several]."""
        output = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            output = os.path.join(output, dataset_name)
        return build_evaluator(cfg, dataset_name, output)

    def _evaluate(self) -> dict[str, float]:
        results = self.test(self.cfg, self.model)
        if self._ema is not None and self.cfg.MODEL.GAN.EMA.EVALUATE:
            cfg = self.cfg.clone()
            cfg.defrost()
            cfg.OUTPUT_DIR = os.path.join(self.cfg.OUTPUT_DIR, "ema")
            with self._ema.in_place():
                results["ema"] = self.test(cfg, self.model)
        self._last_eval_results = results
        if comm.is_main_process():
            log_results(results)
        return finite_metrics(results)
