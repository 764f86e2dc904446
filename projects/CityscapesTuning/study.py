#!/usr/bin/env python
"""A study from one YAML file: sanity check, coarse and fine search, full training with variants, report.

    python projects/CityscapesTuning/study.py run STUDY.yaml --output DIR [--workers N] [--phase NAME] [--dry-run]
    python projects/CityscapesTuning/study.py resume DIR [--workers N]
    python projects/CityscapesTuning/study.py status DIR [--json]
    python projects/CityscapesTuning/study.py report DIR
    python projects/CityscapesTuning/study.py figures DIR [--only NAME ...]
    python projects/CityscapesTuning/study.py export DIR --out DIR [--trial PHASE/KEY]
    python projects/CityscapesTuning/study.py demo [--out DIR]

`run` and `resume` may be killed at any time and started again, and on several machines at once if they share DIR.
Exit code 2: something that the user can mend, in one sentence.
"""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2] / "tools")]

from _command_line import run_command_line
from cityscapes_tuning.commands import parse, work

if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
