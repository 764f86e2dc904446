"""Every command reads its arguments before anything heavy is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _command_line import training_parser
from coigan import choices
from coigan.augmentation import BASELINES
from coigan.segmentation.losses import LOSSES
from coigan.segmentation.networks import build_segmenter
from compare import arm_descriptions
from detectron2.engine import default_argument_parser

from gan_plugin.comparison.arms import ARMS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    *(path for path in sorted((ROOT / "tools").glob("[a-z]*.py"))),
    *(path for path in sorted((ROOT / "projects").glob("*/*.py"))),
]
# Runs the command lines on stdin one after the other in a process that can import nothing heavy; answers, in JSON, exit
# code, output and the options of the parser that helps.
WITHOUT_IMPORTS = """
import argparse, contextlib, io, json, os, runpy, sys
# gan_plugin imports most of them
HEAVY = ("torch", "torchvision", "detectron2", "numpy", "cv2", "yaml", "fvcore", "scipy", "PIL")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
print_help, options = argparse.ArgumentParser.print_help, []

def noted(parser, file=None):
    options.extend(option for action in parser._actions for option in action.option_strings)
    print_help(parser, file)

argparse.ArgumentParser.print_help = noted
before = list(sys.path)
answers = []
for script, *arguments in json.load(sys.stdin):
    options.clear()
    sys.argv, sys.path[:] = [script, *arguments], [os.path.dirname(script), *before[1:]]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            runpy.run_path(script, run_name="__main__")
            code = None
        except SystemExit as end:
            code = end.code or 0
    answers.append([code, out.getvalue(), list(options)])
json.dump(answers, sys.stdout)
"""


def verbs_of(script):
    """What follows the script's name: nothing, or one of its verbs."""
    import cars
    import inpaint
    from cityscapes_tuning.commands import parser

    tuning = parser()._subparsers._group_actions[0].choices
    return {"cars.py": cars.VERBS, "inpaint.py": inpaint.VERBS, "study.py": tuning}.get(script.name, ())


def answers_to(lines):
    given = json.dumps([list(map(str, line)) for line in lines])
    command = [sys.executable, "-c", WITHOUT_IMPORTS]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_command_helps_before_it_imports():
    lines = [[script, *words, "--help"] for script in SCRIPTS for words in [[], *([v] for v in verbs_of(script))]]
    assert len(lines) > 50
    for line, (code, text, options) in zip(lines, answers_to(lines), strict=True):
        assert code == 0 and "usage: " in text, (line, text)
        assert "--help" in options and all(option in text for option in options), (line, text)


def test_every_command_refuses_before_it_imports():
    """A flag or a verb that there is not: one line, exit code 2."""
    lines = [[script, *words, "--no-such-flag=1"] for script in SCRIPTS for words in ([v] for v in verbs_of(script))]
    lines += [
        [script, word] for script in SCRIPTS for word in ("--no-such-flag=1", *(["paint"] if verbs_of(script) else []))
    ]
    for line, (code, text, _) in zip(lines, answers_to(lines), strict=True):
        assert code == 2 and text.startswith("error: ") and text.count("\n") == 1, (line, text)


def test_the_flags_of_training_are_detectron2s():
    ours, theirs = (
        [
            {name: value for name, value in vars(action).items() if name not in ("help", "container")}
            for action in make("")._actions
        ]
        for make in (training_parser, default_argument_parser)
    )
    assert ours == theirs


def test_what_is_said_without_imports_is_true():
    assert arm_descriptions() == {name: arm.description for name, arm in ARMS.items()}
    assert set(choices.BASELINES) == set(BASELINES) and set(choices.LOSSES) == set(LOSSES)
    with pytest.raises(Exception, match=", ".join(choices.NETWORKS)):
        build_segmenter("none")
