#!/usr/bin/env python
"""Train one trial of a study, or any config with the study's keys; what tools/train_net.py is to gan_plugin.

    python projects/CityscapesTuning/train_net.py --config-file FILE [--resume] [KEY VALUE ...]

OUTPUT_DIR gets what tools/train_net.py leaves, validation.json with the losses on TUNING.VAL.DATASETS, and at the end
outcome.json: how it went, and the scores of the best weights on TUNING.TEST.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2] / "tools")]

from _command_line import parse_training, run_command_line

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def train(cfg: "CfgNode", *, resume: bool) -> None:
    """Train, evaluate, and leave the outcome; a divergence or a lack of memory is an outcome too, and goes on."""
    from cityscapes_tuning.training import outcome
    from cityscapes_tuning.training.model_parts import limit_memory
    from cityscapes_tuning.training.trainer import TuningTrainer
    from cityscapes_tuning.training.validation import EarlyStopped
    from detectron2.utils import comm

    from gan_plugin.engine.run_dir import save_config
    from gan_plugin.errors import sentence_of

    done = 0
    try:
        limit_memory(cfg.TUNING.MEMORY_GB)
        trainer = TuningTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        save_config(cfg.OUTPUT_DIR, cfg.dump())
        status = outcome.FINISHED
        try:
            trainer.train()
            done = trainer.max_iter
        except EarlyStopped:
            status, done = outcome.STOPPED_EARLY, int(trainer.validation.history[-1]["iteration"])
        except Exception:
            done = trainer.iter
            raise
        scores = trainer.test_best() if cfg.TUNING.TEST else {}
        if comm.is_main_process():
            result = outcome.Outcome(status, done, cfg.SOLVER.MAX_ITER, scores=scores)
            outcome.write_outcome(result, cfg.OUTPUT_DIR)
    except Exception as error:
        if status := _failure(error):
            # by whichever process meets it, for the others will not
            reason = sentence_of(error) if str(error) else type(error).__name__
            failed = outcome.Outcome(status, done, cfg.SOLVER.MAX_ITER, reason=" ".join(reason.split())[:400])
            outcome.write_outcome(failed, cfg.OUTPUT_DIR)
        raise


def _failure(error: Exception) -> str | None:
    from cityscapes_tuning.training import outcome

    if isinstance(error, FloatingPointError):
        return outcome.DIVERGED
    return outcome.OUT_OF_MEMORY if outcome.is_out_of_memory(error) else None


def run(args: argparse.Namespace) -> None:
    """Do what the command line says, in this process."""
    from cityscapes_tuning.config import add_tuning_config, check_tuning
    from cityscapes_tuning.data.register import prepare_parts
    from detectron2.utils import comm

    from gan_plugin.engine.run_dir import begin_run, claim_output_dir
    from gan_plugin.engine.setup import load_config
    from gan_plugin.errors import explanations_logged

    cfg = load_config(args, add_tuning_config)
    check_tuning(cfg)
    if comm.is_main_process():
        claim_output_dir(cfg, resume=args.resume, eval_only=False)
    prepare_parts(cfg)
    begin_run(cfg.OUTPUT_DIR, args, cfg.dump(), "gan_plugin", seed=cfg.SEED, benchmark=cfg.CUDNN_BENCHMARK)
    with explanations_logged():
        train(cfg, resume=args.resume)


def work(args: argparse.Namespace) -> int:
    """Do what the command line says, in as many processes as it asks for; returns the exit code."""
    from gan_plugin.engine.launch import launch

    return launch(run, args)


def main(arguments: list[str] | None = None) -> int:
    return work(parse(arguments))


parse = partial(parse_training, __doc__)

if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
