#!/usr/bin/env python
"""Controllable object inpainting (COIGAN): prepare data, train, evaluate, and augment a segmentation data set.

    python projects/COIGAN/inpaint.py VERB [ARGUMENTS ...]
    python projects/COIGAN/inpaint.py VERB --help

The verbs prepare, derive and inspect deal with data; README.md has the rest.
"""

import argparse
import importlib
import sys
from pathlib import Path

# so that the tool runs from a checkout, wherever it is called
_PROJECT, _ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_PROJECT), str(_ROOT)]
sys.path.append(str(_ROOT / "tools"))

from _command_line import Parser, run_command_line  # noqa: E402

# verb -> the module with add_arguments(parser) and run(args); imported only when it is called for
VERBS = {
    "prepare": "coigan.commands.prepare",
    "derive": "coigan.commands.derive",
    "inspect": "coigan.commands.inspect",
    "train": "coigan.commands.train",
    "shapes-train": "coigan.commands.shapes_train",
    "evaluate": "coigan.commands.evaluate",
    "infer": "coigan.commands.infer",
    "gui": "coigan.commands.gui",
    "augment": "coigan.commands.augment",
    "segment": "coigan.commands.segment",
    "ab": "coigan.commands.ab",
    "export": "coigan.commands.export",
    "report": "coigan.commands.report",
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of the verb that the command line begins with, and as `run` what does them."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    overview = Parser(__doc__, prog="inpaint.py", epilog=f"VERB is one of: {', '.join(VERBS)}")
    overview.add_argument("verb", choices=VERBS, metavar="VERB", help="see below")
    verb = overview.parse_args(given[:1]).verb
    module = importlib.import_module(VERBS[verb])
    parser = Parser(module.__doc__, prog=f"inpaint.py {verb}")
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser.parse_args(given[1:])


def work(args: argparse.Namespace) -> int | None:
    """Do the verb; returns the exit code, None for 0."""
    return args.run(args)


def main(arguments: list[str] | None = None) -> int | None:
    return work(parse(arguments))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
