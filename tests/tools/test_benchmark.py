"""The benchmark's arithmetic and its command line; how fast anything is, is not for a test."""

import importlib
import json
from pathlib import Path

import pytest
from support import exit_code

TOOL = Path(__file__).resolve().parents[2] / "tools/benchmark.py"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    return importlib.import_module("benchmark")


def test_ratios_are_of_the_same_round(benchmark):
    from benchmarks.timing import summarise

    table = summarise({"plain": [1.0, 2.0, 4.0], "joint": [2.0, 3.0, 4.0]}, "plain")
    assert table["joint"] == {"seconds": 3.0, "ratio_min": 1.0, "ratio_median": 1.5, "ratio_max": 2.0}


@pytest.fixture
def memory_of_two(benchmark, monkeypatch):
    """Each variant whose memory is measured takes an interpreter of its own; two show what five would."""
    from benchmarks import training

    of_all = training.measure_memory
    two = ("plain", "pixel")
    monkeypatch.setattr(
        training, "measure_memory", lambda configs, batch: of_all({name: configs[name] for name in two}, batch)
    )


def test_command_writes_table_and_json(benchmark, memory_of_two, tmp_path, capsys):
    out = tmp_path / "new" / "out.json"
    small = ["--size", "96x96", "--batch", "1", "--rounds", "1", "--images", "1", "--cars-batch", "2"]
    benchmark.main([*small, "--coigan-width", "4", "--batches", "1", "--json", str(out)])
    report = json.loads(out.read_text())
    assert set(report["train_ratio"]) == {"pixel", "pixel_joint", "feature_box", "feature_box_joint"}
    assert report["inference_ratio"] > 0 and report["prroi_vs_roialign"] > 0
    assert report["tables"]["training step"]["plain"]["ratio_median"] == 1.0
    assert report["cityscapes_evaluator"]["speedup"]["fast"] > 1
    assert min(report["coigan_loader"].values()) > 0
    steps = report["tables"]["COIGAN training step"]
    assert sorted(row["ratio_median"] == 1.0 for row in steps.values()) == [False, False, True]
    assert all(report["tables"][penalty]["gan_plugin"]["ratio_median"] > 0 for penalty in ("R1", "path length"))
    assert report["cars"]["dcgan_speed_vs_plain"] > 0 and report["cars"]["logan_step_vs_dcgan"] > 1
    assert report["peak_memory"]["pixel"]["MB"] > 0
    assert "| feature_box joint" in capsys.readouterr().out


def test_bad_size_is_a_sentence(benchmark, capsys):
    assert exit_code(benchmark.main, "--size", "big") == 2
    assert "argument --size: 'big' is no size" in capsys.readouterr().err
