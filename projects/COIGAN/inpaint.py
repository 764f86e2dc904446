#!/usr/bin/env python
"""Controllable object inpainting (COIGAN): prepare data, train, evaluate, and augment a segmentation data set.

    python projects/COIGAN/inpaint.py VERB [ARGUMENTS ...]
    python projects/COIGAN/inpaint.py VERB --help

The verbs toy, prepare, split, derive and inspect deal with data; README.md has the rest.
"""

import argparse
import importlib
import sys
from pathlib import Path

# so that the tool runs from a checkout, wherever it is called
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

from gan_plugin.errors import UserError, run_command_line  # noqa: E402

# verb -> the module with add_arguments(parser) and run(args); imported only when it is called for
VERBS = {
    "toy": "coigan.commands.toy",
    "prepare": "coigan.commands.prepare",
    "split": "coigan.commands.split",
    "derive": "coigan.commands.derive",
    "inspect": "coigan.commands.inspect",
    "train": "coigan.commands.train",
    "resume": "coigan.commands.resume",
    "shapes-train": "coigan.commands.shapes_train",
    "evaluate": "coigan.commands.evaluate",
    "evaluate-all": "coigan.commands.evaluate_all",
    "infer": "coigan.commands.infer",
    "gui": "coigan.commands.gui",
    "augment": "coigan.commands.augment",
    "audit": "coigan.commands.audit",
    "segment": "coigan.commands.segment",
    "ab": "coigan.commands.ab",
    "export": "coigan.commands.export",
    "report": "coigan.commands.report",
}


def main(arguments: list[str] | None = None) -> int | None:
    """Run the verb that the command line begins with; returns its exit code.

    Raises:
        UserError: there is no such verb.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\nVERB is one of: {', '.join(VERBS)}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise UserError(f"There is no verb {verb!r}; use one of {', '.join(VERBS)}.")
    command = importlib.import_module(VERBS[verb])
    parser = argparse.ArgumentParser(
        prog=f"inpaint.py {verb}", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_arguments(parser)
    return command.run(parser.parse_args(rest))


if __name__ == "__main__":
    sys.exit(run_command_line(main))
