"""A config is data: whatever a YAML file says, no code of it runs, and what is wrong is one sentence."""

import argparse
import runpy
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_plugin import UserError
from gan_plugin.config_files import differences, flat, read_config, read_yaml, told
from gan_plugin.engine.export import stock_config
from gan_plugin.engine.lazy_config import load_lazy_config
from gan_plugin.engine.setup import default_config, load_config

ROOT = Path(__file__).resolve().parents[1]
# the players alone are a base beside another, and no config
CONFIGS = sorted(file for file in ROOT.glob("configs/**/*.yaml") if not file.stem.endswith("_players"))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=12,
)
TAGS = {
    "apply": "!!python/object/apply:os.mkdir [{trap}]",
    "new": "!!python/object/new:os.mkdir [{trap}]",
    "eval": '!!python/object/apply:eval [\'__import__("os").mkdir("{trap}")\']',
    "name": "!!python/name:os.mkdir",
    "module": "!!python/module:os",
    "object": "!!python/object:gan_plugin.errors.UserError {{}}",
    "local": "!mine 3",
}
PLACES = {
    "value": "SEED: {tag}",
    "nested": "MODEL: {{GAN: {{MASK: {{CHANNELS: [1, {tag} ]}}}}}}",
    "key": "? {tag}\n: 1",
    "anchor": "OUTPUT_DIR: &a {tag}\nSEED: *a",
    "top": "--- {tag}",
    "base": "_BASE_: {tag}",
}


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(PLAIN)
def test_plain_values_come_back_as_python_wrote_them(value):
    assert repr(read_yaml(yaml.dump(value, sort_keys=False), "It")) == repr(value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_of_an_object_is_refused_and_runs_nothing(tmp_path, tag, place):
    file, trap = tmp_path / "a.yaml", tmp_path / "trap"
    file.write_text(PLACES[place].format(tag=TAGS[tag].format(trap=trap)))
    with pytest.raises(UserError) as caught:
        read_config(str(file))
    assert str(file) in str(caught.value) and "line " in str(caught.value) and "\n" not in str(caught.value)
    assert tag == "local" or "would run Python code" in str(caught.value)
    assert not trap.exists()
    with suppress(UserError):
        read_yaml(file.read_text(), "It", objects=True)
    assert not trap.exists()


def spoiled(tmp_path):
    """(a YAML with a trap, one whose base's base is that one, what springs if its code runs)."""
    trap, bad = tmp_path / "trap", tmp_path / "bad.yaml"
    bad.write_text(f"OUTPUT_DIR: {TAGS['apply'].format(trap=trap)}\n")
    (tmp_path / "middle.yaml").write_text("_BASE_: [bad.yaml]\n")
    (tmp_path / "top.yaml").write_text("_BASE_: middle.yaml\n")
    return bad, tmp_path / "top.yaml", trap


def commands(config, folder):
    """What reads a config, as a user types it."""
    train = [ROOT / "tools/train_net.py", "--config-file", config]
    compare = [ROOT / "tools/compare.py", "--config-file", config, "--iters-a", 1, "--iters-b", 1, "--output", folder]
    return {
        "train": train,
        "evaluate": [*train, "--eval-only"],
        "compare": compare,
        "cars": [ROOT / "projects/CarGAN/cars.py", "train", "--config-file", config],
        "inpaint": [ROOT / "projects/COIGAN/inpaint.py", "train", "--config-file", config, "--data", folder],
        "study": [ROOT / "projects/CityscapesTuning/study.py", "run", config, "--output", folder],
        "trial": [ROOT / "projects/CityscapesTuning/train_net.py", "--config-file", config],
    }


@pytest.mark.parametrize("name", commands("", ""))
def test_every_command_refuses_it(tmp_path, monkeypatch, capsys, name):
    bad, top, trap = spoiled(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for config in (bad,) if name == "study" else (bad, top):
        script, *words = commands(config, tmp_path / "out")[name]
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert ended.value.code == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("error: ") and f"{bad} has the tag !!python/object/apply:os.mkdir in line 1" in said
    assert not trap.exists() and not (tmp_path / "out").exists()


def test_so_do_the_readers_of_saved_configs(tmp_path):
    bad, _, trap = spoiled(tmp_path)
    readers = (stock_config, lambda file: load_lazy_config(argparse.Namespace(config_file=str(file), opts=[])))
    for read in readers:
        with pytest.raises(UserError, match="has the tag !!python/object/apply:os.mkdir"):
            read(bad)
    assert not trap.exists()


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_config_reads_as_detectron2_reads_it(file):
    expected = default_config()
    expected.merge_from_file(str(file))
    found = load_config(argparse.Namespace(config_file=str(file), opts=["MODEL.DEVICE", expected.MODEL.DEVICE]))
    expected.MODEL.DEVICE = found.MODEL.DEVICE
    assert found == expected


def test_bases_go_below_one_another_in_their_order(tmp_path):
    (tmp_path / "a.yaml").write_text("A: {x: 1, y: 1}\nB: 1\n")
    (tmp_path / "b.yaml").write_text("A: {y: 2}\nC: [2]\n")
    (tmp_path / "c.yaml").write_text("_BASE_: [a.yaml, b.yaml]\nA: {z: 3}\n")
    assert read_config(str(tmp_path / "c.yaml")) == {"A": {"x": 1, "y": 2, "z": 3}, "B": 1, "C": [2]}


def test_an_old_config_has_its_keys_translated(tmp_path):
    (tmp_path / "old.yaml").write_text("VERSION: 1\nMODEL: {WEIGHT: mine.pkl}\n")
    cfg = load_config(argparse.Namespace(config_file=str(tmp_path / "old.yaml"), opts=[]))
    assert cfg.MODEL.WEIGHTS == "mine.pkl" and cfg.VERSION == 2


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("_BASE_: a.yaml", "leads back to itself"),
        ("_BASE_: ./b.yaml", "leads back to itself"),
        ("_BASE_: none.yaml", "none.yaml, which .*a.yaml names as _BASE_, does not exist"),
        ("_BASE_: .", "cannot be read"),
        ("_BASE_: 3", "has _BASE_ 3; name a file"),
        ("_BASE_: [1]", r"has _BASE_ \[1\]; name a file"),
        ("_BASE_: http://127.0.0.1:9/x.yaml", "http://127.0.0.1:9/x.yaml, which .*a.yaml names as _BASE_, cannot be"),
        ("", "is empty"),
        ("- 1", "no list of keys"),
        ("1: 2", "no list of keys"),
        ("MODEL: [", "is wrong, no YAML"),
        ("a: &a [*a]\nb: 2026-13-45", "is wrong, no YAML"),
        ("SEED: &a [*a]", "is wrong"),
        ("MODEL: 3", "is wrong"),
        ("MODEL: {GAN: 3}", "is wrong"),
        ("VERSION: 9", "reads up to version 2"),
        ("SEED: {a: 1}", "is wrong"),
        ("SEED: 2026-01-01", "is wrong"),
        ("\x00", "is wrong"),
        ("[" * 1500, "is wrong"),
    ],
)
def test_a_wrong_config_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\n")
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UserError, match=sentence) as caught:
        load_config(argparse.Namespace(config_file=str(tmp_path / "a.yaml"), opts=[]))
    assert "a.yaml" in str(caught.value) and len(str(caught.value)) < 600


def test_differences_name_keys_and_both_values():
    before = {"A": {"x": (1, 2), "y": float("nan")}, "B": 1, "gone": 0}
    now = {"A": {"x": [1, 3], "y": float("nan")}, "B": 1.0, "new": "n" * 500}
    found = differences(flat(before), flat(now))
    assert [key for key, *_ in found] == ["A.x", "new", "gone"]
    assert told(found, 1) == "A.x [1, 2] (now [1, 3]) and 2 more keys"
    assert len(told(found)) < 250
    assert not differences(flat(before), flat(now), {"A.x": 0, "new": "n" * 500, "gone": 0})[1:]
