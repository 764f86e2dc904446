"""The command: a tiny comparison from nothing to its report, again, and after kills; and what bad input answers."""

import csv
import json
import os
import re
import shutil
import statistics
from pathlib import Path

import compare
import interval_coverage
import pytest
import results_page
import torch
from PIL import Image
from support import SMALLEST_MODEL, assert_same, exit_code

from gan_plugin.comparison import conduct
from gan_plugin.comparison import run as run_module
from gan_plugin.comparison.conduct import Cost

CONFIG = Path(__file__).resolve().parents[2] / "configs/quick_schedules/gan_mask_rcnn_penn_fudan_quick.yaml"
# everything that it finds counts, so that there is an AP
TINY = {
    **SMALLEST_MODEL,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.GAN.VIS_PERIOD": 0,
    "INPUT.MIN_SIZE_TRAIN": (64,),
    "INPUT.MIN_SIZE_TEST": 64,
    # of MAX_ITER 400: in the middle of four iterations
    "SOLVER.CHECKPOINT_PERIOD": 200,
}
RUNS = [f"seed{seed}/{arm}" for seed in (0, 1) for arm in ("a", "baseline", "lsgan")]


def arguments(output, *more, iterations=4):
    options = [str(part) for option in TINY.items() for part in option]
    numbers = ["--iters-a", str(iterations), "--iters-b", "4", "--seeds", "0", "1"]
    words = ["--config-file", str(CONFIG), "--arms", "baseline", "lsgan", *numbers, "--output", str(output)]
    return [*words, *map(str, more), *options]


def start(output, *more, **changes):
    return exit_code(compare.main, *arguments(output, *more, **changes))


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def environment(pedestrians):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(pedestrians))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(CONFIG.parents[2]) + os.pathsep + os.environ.get("PYTHONPATH", ""))
        yield patch


@pytest.fixture(scope="module")
def finished(environment, forked, tmp_path_factory):
    """The folder of a comparison, and a copy of the checkpoint in the middle of each run, which it drops at its end."""
    folder, kept = tmp_path_factory.mktemp("comparison") / "out", tmp_path_factory.mktemp("kept")
    settle = run_module.settle

    def settle_with_a_copy(run, iterations):
        shutil.copytree(run, kept / run.parent.name / run.name)
        settle(run, iterations)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "settle", settle_with_a_copy)
        patch.setattr(run_module, "TrainNet", forked)
        assert start(folder) == 0
    return folder, kept


def test_every_run_is_in_the_results(finished):
    folder, _ = finished
    results = json.loads((folder / "results.json").read_text())
    assert results["failures"] == {} and results["plan"]["split"]["used"] == [7, 7, 2]
    found = {run["folder"]: run["metrics"] for seeds in results["runs"].values() for run in seeds.values()}
    assert sorted(found) == RUNS
    for name, metrics in found.items():
        written = json.loads((folder / name / "metrics.json").read_text().splitlines()[-1])
        assert written.pop("iteration") == 4
        assert {key: value for key, value in metrics.items() if value is not None} == written
        assert "segm/AP" in written and "bbox/AP50" in written
    values = [found[f"seed{seed}/lsgan"]["segm/AP50"] for seed in (0, 1)]
    row = results["statistics"]["segm/AP50"]["lsgan"]
    assert row["mean"] == pytest.approx(statistics.mean(values)) and row["std"] == pytest.approx(
        statistics.stdev(values)
    )
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(map(len, found.values()))
    assert {"arm": "lsgan", "seed": "1", "metric": "segm/AP50", "value": str(values[1])} in rows


def test_the_arms_of_a_seed_start_from_its_model_a(finished):
    folder, _ = finished
    for name in RUNS:
        log = (folder / name / "log.txt").read_text()
        start_weights = re.findall(r"\[Checkpointer\] Loading from (\S+)", log)
        assert start_weights == ([] if name.endswith("/a") else [str(folder / name[:5] / "a/model_final.pth")])


def test_the_coverage_of_its_own_intervals(finished, tmp_path, capsys):
    """With the spreads of this comparison; two seeds say little of them, and a few simulations less."""
    folder, _ = finished
    options = ["--comparisons", "5", "--seeds", "3", "--images", "6", "--output", str(tmp_path / "figure.svg")]
    assert exit_code(interval_coverage.main, "--comparison", str(folder), *options) in (0, 1)
    said = capsys.readouterr().out
    metrics = json.loads((folder / "results.json").read_text())["plan"]["main"]
    assert len(metrics) == 4 and all(f"{metric}, lsgan" in said for metric in metrics)
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")
    assert exit_code(interval_coverage.main, "--comparison", str(tmp_path), *options) == 2
    assert exit_code(interval_coverage.main, *options, "--seeds", "1") == 2


def test_the_report_stands_alone(finished):
    folder, _ = finished
    page = (folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    for words in ("With fewer than\n5 no verdict is given", "75 / 75 / 20", "7 / 7 / 2", "too few seeds"):
        assert words in page
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert all(re.search(r"<figcaption>[^<]{60,}</figcaption>", figure) for figure in figures)
    pictures = re.findall(r"<img src=\"data:image/[a-z+]+;base64,[^\"]{999,}\" alt=\"([^\"]+)\">", page)
    assert len(pictures) == page.count("<img")
    # masks, boxes, boundaries, image by image, and two in truth boxes
    assert sum("bar chart" in alt for alt in pictures) == 6 and any("Discriminator" in alt for alt in pictures)
    # by mask and by boundary IoU
    assert sum("Scatter plot" in alt for alt in pictures) == 2
    assert sum("the annotated mask, the predicted mask" in alt for alt in pictures) == 1
    assert "lsgan against the baseline" in page and "seed 0: " in page


def test_the_page_has_every_number_of_the_results(finished, tmp_path, capsys):
    folder, _ = finished
    page = tmp_path / "page.md"
    command = [str(folder), "--output", str(page), "--title", "Tiny", "--pictures", "lsgan"]
    assert exit_code(results_page.main, *command) == 0
    text, results = page.read_text(), json.loads((folder / "results.json").read_text())
    (table,) = re.findall(r"\*\*segm/AP\*\*\n\n(.*?)\n\n", text, re.DOTALL)
    lines = {
        cells[1]: cells[2:] for line in table.splitlines() if (cells := [cell.strip() for cell in line.split("|")])
    }
    for arm, name in (("a", "model A"), ("baseline", "baseline"), ("lsgan", "lsgan")):
        values = [results["runs"][arm][seed]["metrics"]["segm/AP"] for seed in "01"]
        assert lines[name][:3] == [f"{value:.2f}" for value in (*values, statistics.mean(values))]
    assert "Runs without a score: none." in text and "2 seeds are too few" in text
    for picture in re.findall(r"\]\((.+?\.svg)\)", text):
        assert (tmp_path / picture).read_text().count("<svg") == 1
    photos = re.findall(r"\]\((.+?\.jpg)\)\n\n(.+)\n", text)
    assert any("discriminator" in caption for _, caption in photos)
    assert all(Image.open(tmp_path / photo).size > (100, 100) for photo, _ in photos)
    assert exit_code(results_page.main, *command[:-1], "hinge") == 2
    assert "has no arm 'hinge'; it has baseline, lsgan." in capsys.readouterr().err
    assert exit_code(results_page.main, tmp_path, *command[1:]) == 2
    assert "name the --output of tools/compare.py" in capsys.readouterr().err


def test_again_computes_nothing(finished):
    folder, _ = finished
    before = times(folder)
    assert start(folder) == 0
    assert times(folder) == before


def test_a_changed_plan_is_refused_and_leaves_all_as_it_was(finished, capsys):
    folder, _ = finished
    before = times(folder)
    assert start(folder, iterations=5) == 2
    assert "holds a comparison that was begun with --iters-a 4 (now 5)" in capsys.readouterr().err
    assert times(folder) == before


def test_damaged_as_by_kills_it_continues(finished, forked, tmp_path, monkeypatch):
    """One run killed after its checkpoint, in the middle of a line; another one in its final evaluation.

    What is left of that one is done by the tool as it stands, in an interpreter of its own.
    """
    complete, kept = finished
    own = {"lsgan": forked, "baseline": run_module.TrainNet}
    monkeypatch.setattr(
        run_module, "TrainNet", lambda tool, words, folder, *more: own[folder.name](tool, words, folder, *more)
    )
    folder = tmp_path / "out"
    shutil.copytree(complete, folder)
    trained, evaluated = folder / "seed0/lsgan", folder / "seed1/baseline"
    shutil.copy2(kept / "seed0/lsgan/model_0000001.pth", trained)
    (trained / "last_checkpoint").write_text("model_0000001.pth")
    (trained / "model_final.pth").unlink()
    (trained / "metrics.json").write_text('{"iteration": 1, "total_')
    lines = (evaluated / "metrics.json").read_text().splitlines(keepends=True)
    (evaluated / "metrics.json").write_text("".join(lines[:-1]))
    others = {path: time for name in RUNS if name not in ("seed0/lsgan", "seed1/baseline")
              for path, time in times(folder / name).items()}  # fmt: skip
    assert start(folder, "--jobs", 2) == 0
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert "Starting training from iteration 2" in (trained / "log.txt").read_text()
    a, b = (torch.load(root / "seed0/lsgan/model_final.pth", weights_only=True) for root in (complete, folder))
    assert_same(a["model"], b["model"])
    assert (evaluated / "log.txt").read_text().count("Starting training") == 1
    results, again = (json.loads((root / "results.json").read_text()) for root in (complete, folder))
    assert again["statistics"] == results["statistics"]


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--arms", "lsgam"], "The arm 'lsgam' is unknown; --arms takes baseline, bce, lsgan"),
        (["--jobs", "0"], "argument --jobs: '0' is no whole number of 1 or more"),
        (["--sizes", "7", "7", "0"], "leave a part of the data set empty"),
    ],
)
def test_bad_input_is_a_sentence_and_writes_nothing(environment, tmp_path, capsys, options, sentence):
    assert start(tmp_path / "out", *options) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_no_data_set_is_the_sentence_of_the_data_set(environment, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert start(tmp_path / "out") == 2
    assert "The data set 'penn_fudan_train_a': it needs a path that does not exist" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_or_is_anothers(environment, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert start(tmp_path / "file/out") == 2
    assert "is not writable" in capsys.readouterr().err
    assert start(tmp_path) == 2
    assert "holds files that are not of a comparison" in capsys.readouterr().err


def test_a_failed_run_is_exit_code_2_and_in_the_report(finished, forked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_module, "TrainNet", forked)
    folder = tmp_path / "out"
    shutil.copytree(finished[0], folder)
    (folder / "seed1/lsgan/metrics.json").unlink()
    (folder / "seed1/lsgan/model_final.pth").write_text("no weights")
    assert start(folder) == 2
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(failed) == 1 and failed[0].startswith("error: seed1/lsgan failed: ") and "not a checkpoint" in failed[0]
    assert json.loads((folder / "results.json").read_text())["runs"]["lsgan"]["1"]["status"] == "failed"
    assert "The run seed1/lsgan: failed." in (folder / "report.html").read_text()


def test_dry_run_prints_the_plan_and_runs_nothing(environment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(conduct, "measure", lambda plan, tool: Cost(2.0, 10.0))
    assert start(tmp_path / "out", "--dry-run", "--jobs", 2) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in RUNS) and "penn_fudan_train_a (7 images)" in said
    # a run takes 10 + 4 * 2 s; two at a time: both models A, then two rounds of arms
    assert "Estimated time of what is left: 54 s with --jobs 2." in said
    assert not (tmp_path / "out").exists()
