#!/usr/bin/env python
"""Train or evaluate a model of Detectron2 with the plugin's config keys.

    python tools/train_net.py --config-file configs/gan_mask_rcnn_cityscapes.yaml [--resume] [KEY VALUE ...]
    python tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS path/to/model.pth

Data sets are looked for under $DETECTRON2_DATASETS (default: ./datasets).
"""

import argparse
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING

from _command_line import parse_training, run_command_line

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def evaluate(cfg: "CfgNode") -> None:
    """Evaluate MODEL.WEIGHTS on DATASETS.TEST; print the table and add a line to OUTPUT_DIR/metrics.json."""
    from detectron2.utils import comm

    from gan_plugin import AdversarialTrainer
    from gan_plugin.engine.checkpoint import SafeCheckpointer
    from gan_plugin.engine.run_dir import save_config
    from gan_plugin.engine.writers import append_metrics, log_results

    model = AdversarialTrainer.build_model(cfg)
    extra = SafeCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    save_config(cfg.OUTPUT_DIR, cfg.dump(), over_run=False)
    results = AdversarialTrainer.evaluate(cfg, model)
    if comm.is_main_process():
        log_results(results)
        append_metrics(cfg.OUTPUT_DIR, results, iteration=extra.get("iteration", 0))


def train(cfg: "CfgNode", *, resume: bool) -> None:
    """Train from the last checkpoint in OUTPUT_DIR if `resume` is set, else from MODEL.WEIGHTS."""
    from gan_plugin import AdversarialTrainer
    from gan_plugin.engine.run_dir import save_config

    trainer = AdversarialTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    save_config(cfg.OUTPUT_DIR, cfg.dump())
    trainer.train()


def run(args: argparse.Namespace) -> None:
    """Do what the command line says, in this process."""
    from detectron2.utils import comm

    from gan_plugin.data.builtin import prepare_datasets
    from gan_plugin.engine.checkpoint import trained_classes
    from gan_plugin.engine.run_dir import begin_run, claim_output_dir
    from gan_plugin.engine.setup import load_config
    from gan_plugin.errors import UserError, explanations_logged

    cfg = load_config(args)
    if args.eval_only and not cfg.MODEL.WEIGHTS:
        raise UserError("--eval-only needs weights to evaluate; add MODEL.WEIGHTS path/to/model_final.pth.")
    if args.eval_only and not cfg.DATASETS.TEST:
        raise UserError("--eval-only needs data sets to evaluate on; name them in DATASETS.TEST.")
    if comm.is_main_process():
        claim_output_dir(cfg, resume=args.resume, eval_only=args.eval_only)
    known = trained_classes(cfg.MODEL.WEIGHTS) if args.eval_only else ()
    remarks = prepare_datasets(cfg, train=not args.eval_only, known_classes=known)
    benchmark = cfg.CUDNN_BENCHMARK and not args.eval_only
    begin_run(cfg.OUTPUT_DIR, args, cfg.dump(), "gan_plugin", seed=cfg.SEED, benchmark=benchmark)
    for remark in remarks:
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
