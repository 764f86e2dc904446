"""Every command reads its arguments before anything heavy is imported."""

import argparse
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from _command_line import run_command_line, training_parser
from car_gan.output import work_through
from coigan import choices
from coigan.augmentation import BASELINES
from coigan.segmentation.networks import LOSSES, build_segmenter
from compare import arm_descriptions
from detectron2.engine import default_argument_parser
from forked_runs import Fork

from gan_plugin.comparison.arms import ARMS
from gan_plugin.data.parallel import parallel_map

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [
    *(path for path in sorted((ROOT / "tools").glob("[a-z]*.py"))),
    *(path for path in sorted((ROOT / "projects").glob("*/[a-z]*.py"))),
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
    import study
    import to_coco

    verbs = {"cars.py": cars.VERBS, "inpaint.py": inpaint.VERBS, "study.py": study.VERBS, "to_coco.py": to_coco.FORMS}
    return verbs.get(script.name, ())


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


def test_the_help_of_a_command_has_a_line_for_each_of_its_verbs():
    lines = [[script, "--help"] for script in SCRIPTS if verbs_of(script)]
    for (script, _), (_, text, _) in zip(lines, answers_to(lines), strict=True):
        for verb in verbs_of(script):
            assert re.search(rf"^ +{verb} +\S.*\w", text, re.MULTILINE), (script.name, verb)


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
    with pytest.raises(Exception, match=", ".join(map(repr, choices.NETWORKS))):
        build_segmenter("none")


@pytest.fixture
def untouched(monkeypatch):
    """The process's settings as they are before a command, and put back after it."""
    for name in ("OMP_WAIT_POLICY", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        yield


def end_of(work):
    return run_command_line(lambda arguments: argparse.Namespace(), lambda args: work())


def shown(module, text, category=FutureWarning):
    """How many warnings of a module's a user sees."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn_explicit(text, category, f"{module}.py", 1, module)
    return len(seen)


def test_warnings_that_no_user_can_mend_are_ignored_and_all_others_shown(untouched, monkeypatch):
    ours, theirs = "`torch.jit.script` is deprecated", "torch.jit._script"
    logged = ("is_fx_tracing will return true for both", "something else")

    def work():
        assert not shown(theirs, ours) and shown(theirs, "something else") and shown("mine", ours)
        code = f"import warnings as w; w.warn_explicit({ours!r}, FutureWarning, 'f', 1, {theirs!r})"
        assert not subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
        logger = logging.getLogger("torch.fx._symbolic_trace")
        records = [logger.makeRecord(logger.name, logging.WARNING, "", 1, text, (), None) for text in logged]
        assert [bool(logger.filter(record)) for record in records] == [False, True]

    assert end_of(work) == 0
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert end_of(lambda: 0 if shown(theirs, ours) else 1) == 0


def test_threads_wait_without_spinning_unless_the_user_says_so(untouched, monkeypatch):
    assert end_of(lambda: 0 if os.environ["OMP_WAIT_POLICY"] == "PASSIVE" else 1) == 0
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert end_of(lambda: 0 if os.environ["OMP_WAIT_POLICY"] == "ACTIVE" else 1) == 0


def interrupted():
    raise KeyboardInterrupt


def interrupted_on_the_way():
    try:
        interrupted()
    finally:
        raise RuntimeError("half done")


@pytest.mark.parametrize("work", [interrupted, interrupted_on_the_way])
def test_ctrl_c_is_one_line(untouched, capsys, work):
    assert end_of(work) == 130
    assert capsys.readouterr().err == "Stopped by Ctrl-C.\n"


def wait_at(mark):
    """The work of one process of a pool, which says that it has begun, and ends once it may."""
    Path(f"{mark}.{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while not Path(f"{mark}-end").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def wait_in_pool(mark):
    return list(parallel_map(wait_at, [mark, mark], 2))


def wait_in_journal(mark):
    return list(work_through([mark, mark], wait_at, Path(f"{mark}-journal"), workers=2, title=""))


@pytest.mark.parametrize("work", [wait_in_pool, wait_in_journal])
def test_ctrl_c_in_several_processes_is_one_line(tmp_path, work, monkeypatch):
    """A terminal sends the signal to all of them."""
    console, mark = tmp_path / "console.txt", tmp_path / "begun"
    monkeypatch.setattr(sys, "warnoptions", ["ignore"])
    process = Fork(lambda: end_of(lambda: work(mark) and 0), console, new_session=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("begun.*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.2)
    Path(f"{mark}-end").touch()
    assert process.wait() == 130, console.read_text()
    assert re.fullmatch(r"Stopped by (Ctrl-C|SIGINT; the same command continues)\.\n", console.read_text())
