"""The benchmark's arithmetic and its command line; how fast anything is, is not for a test."""

import importlib.util
import json
from pathlib import Path

import pytest

from gan_plugin.errors import run_command_line

TOOL = Path(__file__).resolve().parents[2] / "tools/benchmark.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ratios_are_of_the_same_round(benchmark):
    table = benchmark.summarise({"plain": [1.0, 2.0, 4.0], "joint": [2.0, 3.0, 4.0]})
    assert table["joint"] == {"seconds": 3.0, "ratio_min": 1.0, "ratio_median": 1.5, "ratio_max": 2.0}


def test_command_writes_table_and_json(benchmark, tmp_path, capsys):
    out = tmp_path / "out.json"
    benchmark.main(["--size", "96x96", "--batch", "1", "--rounds", "1", "--json", str(out)])
    results = json.loads(out.read_text())["results"]
    assert set(results["training step"]) == {"plain", "joint", "alternating"}
    assert set(results["inference"]) == {"plain", "adversarial"}
    assert results["inference"]["plain"]["ratio_median"] == 1.0
    assert "| alternating" in capsys.readouterr().out


def test_bad_size_is_a_sentence(benchmark, capsys):
    assert run_command_line(lambda: benchmark.main(["--size", "big"])) == 2
    assert "--size is 'big'" in capsys.readouterr().err
