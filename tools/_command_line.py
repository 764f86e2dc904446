"""What a command does before it imports anything heavy: the process's settings, its arguments, its end.

torch, Detectron2 and gan_plugin take seconds to import. So a command reads its arguments first, and imports what it
needs in the function that does the work: --help and a wrong argument answer at once. This module imports nothing else.
"""

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import NoReturn

# What other packages warn of that no user can correct: the module, and how it begins (without comma and colon).
_WARNINGS = {
    # Detectron2 and fvcore script functions as they are imported; a trace is what an export is asked to write
    "torch.jit._script": "`torch.jit.",
    "torch.jit._trace": "`torch.jit.",
    "torch.jit._serialization": "`torch.jit.",
    # Detectron2's anchors
    "torch.functional": "torch.meshgrid",
    # Detectron2's AMPTrainer; and the first step of a training with AMP, which is left out if it overflows
    "detectron2.engine.train_loop": "`torch.cuda.amp.",
    "torch.optim.lr_scheduler": "Detected call of `lr_scheduler.step()` before",
    "detectron2.model_zoo.model_zoo": "pkg_resources is deprecated",
}
# the same of what PyTorch logs: its logger and how the message begins
_LOGGED = {
    # Detectron2 asks for it in its layers
    "torch.fx._symbolic_trace": "is_fx_tracing will return true",
    # Detectron2 lists the environment of a run, on a machine without a GPU too
    "torch.utils.cpp_extension": "No CUDA runtime is found",
    # how processes end that train together, which the command says itself
    "torch.multiprocessing.spawn": "Terminating process",
}
# On a CPU torch's threads would spin as they wait for each other, which costs a core that others need: a training
# beside another program took more than twice as long.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}
# the flags of `training_parser` that take no value
_SWITCHES = ("--resume", "--eval-only", "-h", "--help")


def run_command_line(
    parse: Callable[[list[str] | None], argparse.Namespace], work: Callable[[argparse.Namespace], int | None]
) -> int:
    """Read this process's command line, do what it says, and return the exit code.

    Args:
        parse: the arguments (None: those of the process) -> their values; imports nothing heavy.
        work: does what they say. What has an `explanation` in gan_plugin.errors ends as one sentence, exit code 2.
    """
    try:
        args = parse(None)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        _ignore_warnings()
        from gan_plugin.errors import run_command_line as explained

        return explained(lambda: work(args))
    except KeyboardInterrupt:
        return stopped()


def _ignore_warnings() -> None:
    """Ignore _WARNINGS in this process and those it starts, unless the user has said by -W what to do with warnings."""
    if sys.warnoptions:
        return
    for module, text in _WARNINGS.items():
        warnings.filterwarnings("ignore", re.escape(text), module=re.escape(module))
    os.environ["PYTHONWARNINGS"] = ",".join(f"ignore:{text}::{module}" for module, text in _WARNINGS.items())


class _Developers(logging.Filter):
    """Drops what _LOGGED holds."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_LOGGED.get(record.name, "\0"))


# here, so that it holds in the processes that a training spawns too: they import its script
for _name in _LOGGED:
    logging.getLogger(_name).addFilter(_Developers())


def stopped() -> int:
    """Say that Ctrl-C has ended the command; the exit code is what a shell expects of that."""
    print("Stopped by Ctrl-C.", file=sys.stderr)
    return 130


class Parser(argparse.ArgumentParser):
    """Shows docstrings as they are written, and a mistake as one line, as all others are shown."""

    def __init__(self, description: str | None = None, *, epilog: str | None = None, prog: str | None = None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        """Print the message and end with exit code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help.\n")


def training_parser(epilog: str | None) -> argparse.ArgumentParser:
    """The parser of Detectron2's `default_argument_parser`, whose import takes seconds: the same flags and defaults."""
    parser = Parser(epilog=epilog)
    parser.add_argument("--config-file", default="", metavar="FILE", help="the config of the model and its training")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint of the output folder")
    parser.add_argument("--eval-only", action="store_true", help="evaluate the weights, and train nothing")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes of this machine, one a GPU")
    parser.add_argument("--num-machines", type=int, default=1, help="how many machines train together")
    parser.add_argument("--machine-rank", type=int, default=0, help="the number of this machine, from 0 on")
    # a port of this user's own that stays the same, so that a process left over is noticed: its port is taken
    port = 2**15 + 2**14 + hash(os.getuid() if sys.platform != "win32" else 1) % 2**14
    parser.add_argument("--dist-url", default=f"tcp://127.0.0.1:{port}", help="where the machines meet")
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        default=None,
        help="changes of the config: KEY VALUE pairs, or key=value for a LazyConfig",
    )
    return parser


def flags_first(arguments: list[str]) -> list[str]:
    """The same command line with its flags before the KEY VALUE pairs.

    Detectron2's parser takes everything after the first KEY for config options; a flag is meant as a flag there too.
    """
    flags, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("-") or _is_number(argument):
            rest.append(argument)
            continue
        flags.append(argument)
        if argument not in _SWITCHES and "=" not in argument:
            flags += list(islice(remaining, 1))
    return flags + rest


def parse_training(epilog: str | None, arguments: list[str] | None) -> argparse.Namespace:
    """The command line (None: this process's) of a tool that trains or evaluates, flags and pairs in any order."""
    return training_parser(epilog).parse_args(flags_first(sys.argv[1:] if arguments is None else arguments))


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """How many processes train together, and where they meet; torchrun does without."""
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes on this machine, on a CPU too")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="N", help="of this machine")
    parser.add_argument("--dist-url", default="auto", metavar="URL")


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Of a comparison of training sets: config, seeds, iterations, output, and KEY VALUE pairs."""
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of a Mask R-CNN")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S", help="3 or more")
    parser.add_argument("--iters-a", type=int, required=True, metavar="N", help="iterations before the arms part")
    parser.add_argument("--iters-b", type=int, required=True, metavar="M", help="iterations of each arm")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="of this comparison alone")
    parser.add_argument("--jobs", type=positive, default=1, metavar="K", help="runs at a time")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="change the config of all runs")


def width_x_height(text: str) -> tuple[int, int]:
    """(width, height) in pixels of WIDTHxHEIGHT, for argparse.

    Raises:
        ArgumentTypeError: `text` is not of that form.
    """
    try:
        width, height = (positive(side) for side in text.lower().split("x"))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as WIDTHxHEIGHT, such as 512x256") from error
    return width, height


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse.

    Raises:
        ArgumentTypeError: `text` is none.
    """
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def score(text: str) -> float:
    """A number from 0 to 1, for argparse."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
