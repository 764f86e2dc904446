#!/usr/bin/env python
"""Train or evaluate a model of a Detectron2 LazyConfig.

    python tools/lazyconfig_train_net.py --config-file configs/lazy/gan_mask_rcnn_cityscapes.py [--resume] [key=value]
    python tools/lazyconfig_train_net.py --config-file ... --eval-only train.init_checkpoint=path/to/model.pth

Data sets are looked for under $DETECTRON2_DATASETS (default: ./datasets).
"""

import argparse
import logging
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from _command_line import parse_training, run_command_line

if TYPE_CHECKING:
    from omegaconf import DictConfig


def check_evaluation(cfg: "DictConfig") -> None:
    """Raise a UserError unless the config has what --eval-only needs."""
    from gan_plugin.errors import UserError

    if not cfg.train.init_checkpoint:
        raise UserError("--eval-only needs weights to evaluate; add train.init_checkpoint=path/to/model_final.pth.")
    if "evaluator" not in cfg.dataloader:
        raise UserError("--eval-only needs dataloader.test and dataloader.evaluator, which the config does not have.")


def evaluate(cfg: "DictConfig") -> None:
    """Evaluate train.init_checkpoint; print the table and add a line to metrics.json in train.output_dir."""
    from detectron2.utils import comm

    from gan_plugin.engine import lazy_trainer
    from gan_plugin.engine.checkpoint import SafeCheckpointer
    from gan_plugin.engine.lazy_config import as_yaml
    from gan_plugin.engine.run_dir import save_config
    from gan_plugin.engine.writers import append_metrics, log_results

    model = lazy_trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, cfg.train.output_dir)
    checkpointer.weights_key = "train.init_checkpoint"
    extra = checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=False)
    save_config(cfg.train.output_dir, as_yaml(cfg), over_run=False)
    results = lazy_trainer.evaluate(cfg, model)
    if comm.is_main_process():
        log_results(results)
        append_metrics(cfg.train.output_dir, results, iteration=extra.get("iteration", 0))


def train(cfg: "DictConfig", *, resume: bool) -> None:
    """Train from the last checkpoint in train.output_dir if `resume` is set, else from train.init_checkpoint."""
    from gan_plugin.engine.lazy_config import as_yaml
    from gan_plugin.engine.lazy_trainer import LazyTrainer
    from gan_plugin.engine.run_dir import save_config

    trainer = LazyTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    save_config(cfg.train.output_dir, as_yaml(cfg))
    trainer.train()


def run(args: argparse.Namespace) -> None:
    """Do what the command line says, in this process."""
    from detectron2.utils import comm

    from gan_plugin.data.examine import prepare
    from gan_plugin.engine.checkpoint import trained_classes
    from gan_plugin.engine.lazy_config import (
        as_yaml,
        call_defaults,
        demand_of,
        fixed_values,
        is_fixed,
        load_lazy_config,
    )
    from gan_plugin.engine.run_dir import begin_run, claim_folder
    from gan_plugin.errors import explanations_logged

    cfg = load_lazy_config(args)
    if args.eval_only:
        check_evaluation(cfg)
    if comm.is_main_process():
        claim_folder(
            cfg.train.output_dir,
            fixed_values(cfg),
            call_defaults(cfg),
            resume=args.resume,
            eval_only=args.eval_only,
            key="train.output_dir",
            weights_key="train.init_checkpoint",
            owns=is_fixed,
        )
    demand = demand_of(cfg, train=not args.eval_only)
    if args.eval_only:
        demand = replace(demand, known_classes=trained_classes(cfg.train.init_checkpoint))
    repairs = prepare(demand, os.path.join(cfg.train.output_dir, "data"))
    if repairs.bitmask:
        cfg.dataloader.train.mapper.instance_mask_format = "bitmask"
    benchmark = cfg.train.get("cudnn_benchmark", False) and not args.eval_only
    begin_run(cfg.train.output_dir, args, as_yaml(cfg), "gan_plugin", seed=cfg.train.seed, benchmark=benchmark)
    for remark in repairs.remarks:
        logging.getLogger("gan_plugin").warning(remark)
    with explanations_logged():
        evaluate(cfg) if args.eval_only else train(cfg, resume=args.resume)


def work(args: argparse.Namespace) -> int:
    """Do what the command line says, in as many processes as it asks for; returns the exit code."""
    from gan_plugin.engine.launch import launch

    return launch(run, args)


def main(arguments: list[str] | None = None) -> int:
    return work(parse(arguments))


parse = partial(parse_training, __doc__)
command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
