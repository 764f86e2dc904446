"""From a command line to the processes that train."""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable

import torch
import torch.distributed
import torch.multiprocessing
from detectron2.engine import launch as launch_detectron2
from detectron2.utils import comm

from gan_plugin.errors import UserError, run_command_line
from gan_plugin.processes import stop_signals_answered
from gan_plugin.rules import whole

from .distributed import TrainingInterrupted

Main = Callable[[argparse.Namespace], None]


def launch(main: Main, args: argparse.Namespace) -> int:
    """Call `main(args)` in every process that `args` or torchrun ask for; returns the exit code.

    With --num-gpus above 1 Detectron2's launcher starts the processes, on the CPU too (gloo) where there is no GPU;
    under torchrun they are running already and find each other by its environment variables.

    Args:
        main: does the work of one process.
        args: with `num_gpus`, `num_machines`, `machine_rank` and `dist_url`, as Detectron2's parser makes them.

    Raises:
        UserError: the processes cannot be started, or the only one fails with one.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _join_torchrun()
        return _guarded(main, args)
    if args.num_gpus * args.num_machines == 1:
        return _run(main, args)
    _check_counts(args)
    try:
        # They leave a checkpoint.
        with stop_signals_answered(_hand_on_to_children):
            launch_detectron2(
                _work,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(main, args),
            )
    except torch.multiprocessing.ProcessExitedException as error:
        # The process has said why; a process killed by a signal has not.
        if error.exit_code < 0:
            raise UserError(
                f"A training process was killed by signal {-error.exit_code}, perhaps for lack of memory; the last "
                "checkpoint is kept, continue with --resume."
            ) from error
        return error.exit_code
    return 0


def _check_counts(args: argparse.Namespace) -> None:
    whole(1).check("--num-gpus", args.num_gpus)
    whole(1).check("--num-machines", args.num_machines)
    available = torch.cuda.device_count()
    if torch.cuda.is_available() and args.num_gpus > available:
        raise UserError(f"--num-gpus is {args.num_gpus}, but this machine has {available}.")


def _work(main: Main, args: argparse.Namespace) -> None:
    """One of several processes on this machine; leaves with the exit code, which is all that the parent gets."""
    # Out of reach of a signal to the whole group, which would come twice, and the second one is not waited for.
    os.setpgrp()
    sys.exit(_guarded(main, args))


def _hand_on_to_children(signum: int) -> None:
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, signum)


def _guarded(main: Main, args: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        # Each process would take all cores; and a spawned pool would import everything again for every data set.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // comm.get_local_size()))
        multiprocessing.set_start_method("fork", force=True)
    return run_command_line(lambda: _run(main, args))


def _run(main: Main, args: argparse.Namespace) -> int:
    try:
        main(args)
    except TrainingInterrupted as stop:
        if comm.is_main_process():
            print(stop, file=sys.stderr)
        return stop.exit_code
    return 0


def _join_torchrun() -> None:
    """Join the process group that torchrun has laid out, as Detectron2's launcher would have done."""
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if has_gpu else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()
