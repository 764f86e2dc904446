"""Detectron2's DefaultTrainer for two players."""

import logging
import os
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from gan_plugin.config import check_choice, check_name
from gan_plugin.data.builtin import class_names
from gan_plugin.data.mappers import CheckedDatasetMapper
from gan_plugin.evaluation.build import build_evaluator, metric_names
from gan_plugin.evaluation.truth_boxes import evaluating
from gan_plugin.modeling.meta_arch import discriminator_parameters

from .check_config import check_values, refuse_unsupported, warn_of_idle_keys
from .distributed import share_weights, wrap_for_processes
from .hooks import GeneratorEMA
from .loop import TTA, GameLoop
from .optimizers import (
    build_discriminator_optimizer,
    build_discriminator_scheduler,
    build_generator_optimizer,
    left_out,
    with_all,
    without,
)
from .steps import AlternatingStep, JointStep, mixed_precision
from .train_loader import ResumableTrainLoader, build_resumable_train_loader

# those of Detectron2's build_lr_scheduler
_SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")


class AdversarialTrainer(GameLoop, DefaultTrainer):
    """Trains an AdversarialModel in the mode that `MODEL.GAN.MODE` names, and any other Detectron2 model as usual.

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
        # DefaultTrainer's constructor builds one optimizer over everything; the rest of what it does is done here.
        check_values(cfg, own_optimizer=_function(type(self), "build_optimizer") is not _OPTIMIZER)
        warn_of_idle_keys(cfg)
        names = self.metric_names(cfg)
        if cfg.TEST.BEST_METRIC and names:
            check_name("TEST.BEST_METRIC", cfg.TEST.BEST_METRIC.removeprefix("-"), names)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        refuse_unsupported(cfg, model)
        average = cfg.MODEL.GAN.EMA
        ema = GeneratorEMA(model, average.DECAY) if average.DECAY > 0 else None
        step = self._build_step(cfg, model)
        GameLoop.__init__(
            self,
            step,
            self.build_lr_scheduler(cfg, step.optimizer),
            max_iter=cfg.SOLVER.MAX_ITER,
            output_dir=cfg.OUTPUT_DIR,
            ema=ema,
            evaluate_ema=average.EVALUATE,
        )
        self.checkpointer.thing_classes = class_names(cfg.DATASETS.TRAIN)
        self.register_hooks(self.build_hooks())

    def _build_step(self, cfg: CfgNode, model: nn.Module) -> JointStep | AlternatingStep:
        loader = self.build_train_loader(cfg)
        options = {
            "accumulate": cfg.SOLVER.ACCUMULATE,
            "amp": mixed_precision(cfg.SOLVER.AMP.ENABLED, model),
            "shares_period": cfg.SOLVER.GRADIENT_SHARES_PERIOD,
        }
        if cfg.MODEL.GAN.ENABLED and cfg.MODEL.GAN.MODE == "alternating":
            players = discriminator_parameters(model)
            with left_out(players):
                optimizer = without(self.build_optimizer(cfg, model), players)
            disc_optimizer = build_discriminator_optimizer(cfg, players)
            order = check_choice("MODEL.GAN.ORDER", cfg.MODEL.GAN.ORDER)
            share_weights(model)
            return AlternatingStep(model, loader, optimizer, disc_optimizer, order, cfg.MODEL.GAN.DISC_STEPS, **options)
        optimizer = with_all(self.build_optimizer(cfg, model), discriminator_parameters(model))
        return JointStep(wrap_for_processes(model, broadcast_buffers=False), loader, optimizer, **options)

    def build_hooks(self) -> list[Any]:
        """The hooks that `arrange_hooks` explains, with the periods of the config."""
        cfg = self.cfg
        disc = getattr(self._trainer, "disc_optimizer", None)
        # Adam's steps do not depend on the size of the gradients, which is what the factor scales.
        scales = cfg.SOLVER.OPTIMIZER.lower() == "sgd"
        return self.arrange_hooks(
            self.schedule_hooks(
                disc and build_discriminator_scheduler(cfg, disc), cfg.MODEL.GAN.DISC_LR_FACTOR if scales else 1.0
            ),
            checkpoints={"period": cfg.SOLVER.CHECKPOINT_PERIOD},
            eval_period=cfg.TEST.EVAL_PERIOD,
            eval_at_end=bool(cfg.DATASETS.TEST),
            best_metric=cfg.TEST.BEST_METRIC,
            precise_bn=self._precise_bn(),
        )

    def _precise_bn(self) -> hooks.PreciseBN | None:
        if not (self.cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model)):
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        loader = self.build_train_loader(cfg)
        return hooks.PreciseBN(self.cfg.TEST.EVAL_PERIOD, self.model, loader, self.cfg.TEST.PRECISE_BN.NUM_ITER)

    def _loop(self) -> None:
        # Detectron2's, which also compares with TEST.EXPECTED_RESULTS.
        DefaultTrainer.train(self)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        """The optimizer over everything that `SOLVER.OPTIMIZER` names; in alternating mode over the generator's part.

        One of your own in a subclass is used in its place, with its groups and its clipping. In the alternating mode
        the discriminator's parameters are taken out of it, if it holds them, in the joint mode they are added to it if
        it does not.
        """
        return build_generator_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Any) -> Any:
        """Detectron2's schedule of that name; a UserError that lists the known ones for any other."""
        check_name("SOLVER.LR_SCHEDULER_NAME", cfg.SOLVER.LR_SCHEDULER_NAME, _SCHEDULES)
        check_name("SOLVER.WARMUP_METHOD", cfg.SOLVER.WARMUP_METHOD, ("constant", "linear"))
        return super().build_lr_scheduler(cfg, optimizer)

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

    @classmethod
    def metric_names(cls, cfg: CfgNode) -> list[str]:
        """What an evaluation may give and TEST.BEST_METRIC name; none for a subclass that evaluates in its own way."""
        own = [_function(cls, name) is _function(base, name) for base, name in _EVALUATION]
        return metric_names(cfg) if cfg.DATASETS.TEST and all(own) else []

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> Any:
        """Detectron2's; an evaluator that asks the model for more than its outputs (TEST.TRUTH_BOXES) is told it."""
        with evaluating(model):
            return super().test(cfg, model, evaluators)

    @classmethod
    def evaluate(cls, cfg: CfgNode, model: nn.Module) -> Any:
        """`test`, and with TEST.AUG.ENABLED once more with test-time augmentation under "tta"; nested results."""
        results = cls.test(cfg, model)
        return {**results, TTA: cls.test_augmented(cfg, model)} if cfg.TEST.AUG.ENABLED else results

    @classmethod
    def test_augmented(cls, cfg: CfgNode, model: nn.Module) -> Any:
        """`test` of Detectron2's GeneralizedRCNNWithTTA, as TEST.AUG describes it; its files go to OUTPUT_DIR/tta."""
        note = " It finds boxes, so masks in truth boxes are measured without it." if cfg.TEST.TRUTH_BOXES else ""
        logging.getLogger(__name__).info(f"Evaluating with test-time augmentation.{note}")
        below = _below(cfg, TTA)
        below.TEST.TRUTH_BOXES = False
        return cls.test(below, GeneralizedRCNNWithTTA(cfg, model))

    def evaluate_weights(self, subfolder: str) -> Any:
        """`test` on DATASETS.TEST with its files in that folder of OUTPUT_DIR; returns nested results."""
        return self.test(_below(self.cfg, subfolder), self.model)

    def evaluate_augmented(self, subfolder: str) -> Any:
        """As `test_augmented`, {} without TEST.AUG.ENABLED."""
        return self.test_augmented(_below(self.cfg, subfolder), self.model) if self.cfg.TEST.AUG.ENABLED else {}


_OPTIMIZER = AdversarialTrainer.build_optimizer.__func__  # type: ignore[attr-defined]

# of these methods the names of the metrics depend
_EVALUATION = (
    (AdversarialTrainer, "build_evaluator"),
    (AdversarialTrainer, "build_hooks"),
    (AdversarialTrainer, "test"),
)


def _function(cls: type, name: str) -> Any:
    # a bound class method is another object at each look
    found = getattr(cls, name)
    return getattr(found, "__func__", found)


def _below(cfg: CfgNode, folder: str) -> CfgNode:
    """The same config with that folder of OUTPUT_DIR in its place, "" for OUTPUT_DIR itself."""
    if folder:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, folder)
    return cfg
