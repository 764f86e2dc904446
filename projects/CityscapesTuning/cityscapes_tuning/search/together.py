"""Several workers of one machine on one study."""

import os
from pathlib import Path

import torch

from gan_plugin.comparison.process import TrainNet
from gan_plugin.errors import UserError

from .advance import Findings
from .context import Context
from .table import Table
from .worker import Worker, print_line

TOOL = Path(__file__).resolve().parents[2] / "study.py"


def work_together(context: Context, table: Table, workers: int, phase: str = "") -> Findings:
    """Work on a study in this process and in `workers` - 1 others, until it is finished.

    Raises:
        UserError: the study cannot go on.
        Stopped: by a signal.
    """
    if workers < 1:
        raise UserError(f"--workers is {workers}; set it to 1 or more.")
    shares = shares_of_machine(workers, context.study.gpus_per_trial)
    only = ["--phase", phase] if phase else []
    helpers = [
        TrainNet(TOOL, ["work", str(context.folder), *only], context.folder / "workers" / str(number), share, ())
        for number, share in enumerate(shares[1:], start=1)
    ]
    try:
        return Worker(context, table, only=phase, say=print_line, extra_environment=shares[0]).work()
    finally:
        for helper in helpers:
            helper.stop()
        for helper in helpers:
            helper.wait()


def shares_of_machine(workers: int, gpus_per_trial: int) -> list[dict[str, str]]:
    """For each worker of this machine the variables that give it its cores, and its GPUs in turn if there are any."""
    shared: dict[str, str] = {}
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        shared["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if len(gpus) < 2:
        return [shared] * workers
    groups = [gpus[i : i + gpus_per_trial] for i in range(0, len(gpus), gpus_per_trial)]
    return [{**shared, "CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} for i in range(workers)]
