"""A config's schedule, squeezed into fewer iterations or stretched over more."""

from typing import Any

from detectron2.config import CfgNode


def scaled_schedule(cfg: CfgNode, iterations: int) -> dict[str, Any]:
    """The keys that count iterations, each the same share of `iterations` as it was of SOLVER.MAX_ITER.

    Steps that would fall on the start, the end or one another are left out. Nothing is evaluated on the way and no
    checkpoint is chosen by its score: the held-out images must not take part in the training.
    """
    share = iterations / cfg.SOLVER.MAX_ITER
    steps = {round(step * share) for step in cfg.SOLVER.STEPS}
    return {
        "SOLVER.MAX_ITER": iterations,
        "SOLVER.STEPS": sorted(step for step in steps if 0 < step < iterations),
        "SOLVER.WARMUP_ITERS": round(cfg.SOLVER.WARMUP_ITERS * share),
        "SOLVER.CHECKPOINT_PERIOD": max(1, round(cfg.SOLVER.CHECKPOINT_PERIOD * share)),
        "MODEL.GAN.START_ITER": round(cfg.MODEL.GAN.START_ITER * share),
        "MODEL.GAN.WARMUP_ITERS": round(cfg.MODEL.GAN.WARMUP_ITERS * share),
        "TEST.EVAL_PERIOD": 0,
        "TEST.BEST_METRIC": "",
    }
