#!/usr/bin/env python
"""A study from one YAML file: sanity check, coarse and fine search, full training with variants, report.

    python projects/CityscapesTuning/study.py VERB [ARGUMENTS ...]
    python projects/CityscapesTuning/study.py VERB --help

`run` and `resume` may be killed at any time and started again, and on several machines at once if they share DIR.
Exit code 2: something that the user can correct, in one sentence.
"""

import sys
from functools import partial
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2] / "tools")]

from _command_line import run_command_line
from _verbs import parse_verb, run_verb
from cityscapes_tuning.commands import VERBS

parse = partial(parse_verb, __doc__, "study.py", VERBS)


def main(arguments: list[str] | None = None) -> int | None:
    return run_verb(parse(arguments))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, run_verb))
