#!/usr/bin/env python
"""Controllable object inpainting (COIGAN): prepare data, train, evaluate, and augment a segmentation data set.

    python projects/COIGAN/inpaint.py VERB [ARGUMENTS ...]
    python projects/COIGAN/inpaint.py VERB --help

The verbs prepare, derive and inspect deal with data; README.md has the rest.
"""

import sys
from functools import partial
from pathlib import Path

# so that the tool runs from a checkout, wherever it is called
_PROJECT, _ROOT = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_PROJECT), str(_ROOT)]
sys.path.append(str(_ROOT / "tools"))

from _command_line import run_command_line  # noqa: E402
from _verbs import Verbs, parse_verb, run_verb  # noqa: E402

# verb -> the module with add_arguments(parser) and run(args); imported only when it is called for
VERBS: Verbs = {
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


parse = partial(parse_verb, __doc__, "inpaint.py", VERBS)


def main(arguments: list[str] | None = None) -> int | None:
    return run_verb(parse(arguments))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, run_verb))
