"""The README's commands, one after the other as they are printed, with small sizes added."""

import re
import shlex
from pathlib import Path

import cars
import make_toy_cityscapes
from car_gan.ab import check_sets
from car_runs import NARROW, SHORT

from gan_plugin.comparison import training_sets
from gan_plugin.errors import run_command_line

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "projects/CarGAN/README.md"
PROGRAM = ".venv/bin/python"
SCRIPTS = {"projects/CarGAN/cars.py": cars.main, "tools/make_toy_cityscapes.py": make_toy_cityscapes.main}
# what is added to a command, by its verb; the samples of so short a training are noise, which is pasted as it is
SMALL = {
    "": "--train 24 --val 2 --size 384x192",
    "build": "FILTER.MIN_VISIBLE 0.5",
    "train": f"{NARROW} {SHORT} SOLVER.MAX_ITER 2",
    "resume": "SOLVER.MAX_ITER 3",
    "judge": "--count 4",
    "sample": "--count 4",
    "interpolate": "--rows 1 --steps 2",
    "compose": "MATTING.MAX_FUZZY 1.0 MATTING.MIN_COVER 0.0 MATTING.MAX_COVER 1.0 PLACE.MAX_ENLARGE 9.0 PLACE.TRIES 80",
}


def printed():
    """The words of every command in the README, whose lines are indented and may go on after a backslash."""
    text = README.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^    (.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines if not line.startswith(("register_", " "))]


def test_every_command_is_one_of_a_fresh_clone():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *words in printed():
        assert (program == "make" and words[0] in targets) or (program == PROGRAM and words[0] in SCRIPTS), words
    verbs = {words[2] for words in printed() if words[1:2] == ["projects/CarGAN/cars.py"]}
    assert verbs == {*cars.VERBS, "--help"}


def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    for name in ("projects", "tools", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    sizes = []

    def check_only(args, make_plan, story):
        # the comparison's own test runs one; here its sets and arms have to fit
        sizes.append(check_sets(make_plan.keywords["sets"])[0])

    monkeypatch.setattr(training_sets, "compare_training_sets", check_only)
    for words in printed():
        if words[0] == "make" or words[2] == "--help":
            continue
        script, *arguments = words[1:]
        verb = arguments[0] if script.endswith("cars.py") else ""
        given = [*arguments, *SMALL.get(verb, "").split()]
        assert run_command_line(lambda s=script, a=given: SCRIPTS[s](a)) == 0, (words, capsys.readouterr().err)
    assert {path.name for path in Path("output/cars").iterdir()} >= {"comparison", "exported", "composed", "copies"}
    assert len(list(Path("output/cars/new_cars/cars").iterdir())) == 4
    assert sizes == [{"ab_real": 24, "ab_new": 24, "ab_copies": 24, "ab_test": 2}]


def test_it_names_every_preset():
    text = README.read_text(encoding="utf-8")
    configs = [path.stem for path in (ROOT / "projects/CarGAN/configs").glob("*.yaml")]
    assert len(configs) > 9 and not [name for name in configs if f"`{name}`" not in text and f"{name}.yaml" not in text]
