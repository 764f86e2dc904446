"""The trainer of two players for Detectron2's LazyConfig."""

import copy
import logging
import os
from typing import Any

import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.solver import LRMultiplier
from omegaconf import DictConfig, OmegaConf
from torch import nn

from gan_plugin.data.builtin import class_names
from gan_plugin.errors import UserError
from gan_plugin.evaluation.truth_boxes import drawing_of, evaluating
from gan_plugin.modeling.meta_arch import discriminator_parameters

from .distributed import share_weights, wrap_for_processes
from .hooks import GeneratorEMA
from .lazy_config import build, build_optimizer, dataset_names
from .loop import GameLoop
from .optimizers import left_out
from .steps import AlternatingStep, JointStep, mixed_precision

_logger = logging.getLogger(__name__)


def build_model(cfg: DictConfig) -> nn.Module:
    """The model of `cfg` on `train.device`."""
    model = build(cfg, "model").to(cfg.train.device)
    _logger.info(f"Model:\n{model}")
    return model


def evaluate(cfg: DictConfig, model: nn.Module) -> Any:
    """Nested results of `dataloader.evaluator` on `dataloader.test`; empty if the config has no evaluator."""
    if "evaluator" not in cfg.dataloader:
        return {}
    with evaluating(model):
        return inference_on_dataset(model, build(cfg, "dataloader.test"), build(cfg, "dataloader.evaluator"))


class LazyTrainer(GameLoop):
    """Trains the model of a LazyConfig in the mode that `train.gan.mode` names, as AdversarialTrainer does for YAML."""

    def __init__(self, cfg: DictConfig) -> None:
        """
        Args:
            cfg: of `load_lazy_config`.

        Raises:
            UserError: a node cannot be built, or the alternating mode lacks a discriminator.
        """
        self.cfg = cfg
        model = build_model(cfg)
        if OmegaConf.select(cfg, "dataloader.evaluator.truth_boxes", default=False):
            drawing_of(model)
        decay = cfg.train.ema.decay
        ema = GeneratorEMA(model, decay) if decay > 0 else None
        step = self._build_step(model)
        super().__init__(
            step,
            LRMultiplier(step.optimizer, build(cfg, "lr_multiplier"), cfg.train.max_iter),
            max_iter=cfg.train.max_iter,
            output_dir=cfg.train.output_dir,
            ema=ema,
            evaluate_ema=cfg.train.ema.evaluate,
        )
        self.checkpointer.weights_key = "train.init_checkpoint"
        self.checkpointer.thing_classes = class_names(dataset_names(cfg, ("train",)))
        self.register_hooks(self._build_hooks())

    def _build_step(self, model: nn.Module) -> JointStep | AlternatingStep:
        cfg, gan = self.cfg, self.cfg.train.gan
        loader = build(cfg, "dataloader.train")
        options = {
            "accumulate": cfg.train.accumulate,
            "amp": mixed_precision(cfg.train.amp.enabled, model),
            "shares_period": cfg.train.gradient_shares_period,
        }
        if gan.mode == "joint":
            optimizer = build_optimizer(cfg, "optimizer", model)
            return JointStep(wrap_for_processes(model, **cfg.train.ddp), loader, optimizer, **options)
        players = discriminator_parameters(model)
        if not players:
            raise UserError("train.gan.mode=alternating needs a model with adversaries; set it to joint.")
        with left_out(players):
            optimizer = build_optimizer(cfg, "optimizer", model)
        adversaries: Any = model.adversaries
        disc_optimizer = build_optimizer(cfg, "disc_optimizer", adversaries)
        share_weights(model)
        return AlternatingStep(model, loader, optimizer, disc_optimizer, gan.order, gan.disc_steps, **options)

    def _build_hooks(self) -> list[Any]:
        cfg = self.cfg
        disc = getattr(self._trainer, "disc_optimizer", None)
        schedule = disc and LRMultiplier(disc, build(cfg, "disc_lr_multiplier"), cfg.train.max_iter)
        # Adam's steps do not depend on the size of the gradients, which is what the factor scales.
        scales = isinstance(self.optimizer, torch.optim.SGD)
        return self.arrange_hooks(
            self.schedule_hooks(schedule, cfg.model.get("disc_lr_factor", 1.0) if scales else 1.0),
            checkpoints=dict(cfg.train.checkpointer),
            eval_period=cfg.train.eval_period,
            eval_at_end="evaluator" in cfg.dataloader,
            best_metric=cfg.train.best_metric,
            write_period=cfg.train.log_period,
        )

    def resume_or_load(self, resume: bool) -> None:
        """Load the last checkpoint with all its states if `resume` is set and there is one, else the initial weights.

        Raises:
            UserError: the file cannot be read; see SafeCheckpointer.
        """
        self.checkpointer.resume_or_load(self.cfg.train.init_checkpoint, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1

    def evaluate_weights(self, subfolder: str) -> Any:
        cfg = self.cfg
        if subfolder:
            cfg = copy.deepcopy(cfg)
            cfg.train.output_dir = os.path.join(cfg.train.output_dir, subfolder)
        return evaluate(cfg, self.model)

    @property
    def model(self) -> nn.Module:
        """The model, in DistributedDataParallel where the mode needs it."""
        return self._trainer.model

    @property
    def data_loader(self) -> Any:
        """What training batches come from."""
        return self._trainer.data_loader

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The generator's, or both players'."""
        return self._trainer.optimizer
