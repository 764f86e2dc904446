#!/usr/bin/env python
"""Toy steel, a COIGAN trained on it, its scores, 20 synthetic images with labels, and a report: from nothing on a CPU.

    python tools/demo_coigan.py [--out output/demo-coigan] [--iters N] [--seed 0]

The last line on stdout holds the scores and the path of the report. A later demo in the same folder replaces the run.
"""

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from demo import clear_run
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances

from gan_plugin.errors import UserError, run_command_line

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "projects/COIGAN"
SHEETS, SIZE, TILE, PAINTED = 120, "64x400", 64, 20


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/demo-coigan"), metavar="DIR")
    parser.add_argument("--iters", type=int, metavar="N", help="iterations of training; default: the config's")
    parser.add_argument("--seed", type=int, default=0, help="of toy data and training")
    args = parser.parse_args(arguments)
    clear_run(args.out)
    toy, data, run, augmented = (args.out / name for name in ("toy", "data", "run", "augmented"))
    inpaint = load_command_line()
    options = ["OUTPUT_DIR", run, "SEED", args.seed, *([] if args.iters is None else ["SOLVER.MAX_ITER", args.iters])]
    weights = run / "model_final.pth"
    steps: dict[str, list[object]] = {
        "1/6 Toy steel": ["toy", toy, "--count", SHEETS, "--size", SIZE, "--seed", args.seed],
        "2/6 Split, tiles, objects": ["prepare", toy, data, "--tile", TILE],
        "3/6 Training": ["train", "--config-file", PROJECT / "configs/toy.yaml", "--data", data, *options],
        "4/6 Scores": ["evaluate", weights, "--count", 300],
        "5/6 Synthetic images": ["augment", weights, "--out", augmented, "--count", PAINTED],
        "6/6 Report": ["report", run, "--out", args.out / "report.html", "--augmented", augmented],
    }
    for title, words in steps.items():
        do_step(title, inpaint, [str(word) for word in words])
    scores = json.loads((run / "report.json").read_text(encoding="utf-8"))
    painted, real = (scores[name]["FID"] for name in ("painted_vs_test", "train_vs_test"))
    print(
        f"demo: FID {painted:.2f} painted vs test, {real:.2f} train vs test ({scores['extractor']}), "
        f"{PAINTED} synthetic images with {count_labels(augmented)} labelled defects, "
        f"report {os.path.relpath(args.out / 'report.html')}"
    )


def load_command_line() -> Callable[[list[str]], int | None]:
    """`main` of the project's inpaint.py."""
    sys.path.insert(0, str(PROJECT))
    return importlib.import_module("inpaint").main


def do_step(title: str, inpaint: Callable[[list[str]], int | None], words: list[str]) -> None:
    """Run one verb under a heading and with the seconds it took.

    Raises:
        UserError: it failed or was stopped.
    """
    print(f"\n=== {title} ===", flush=True)
    start = time.monotonic()
    if code := inpaint(words):
        raise UserError(f"The demo's step {title} ended with exit code {code}; the reason is above.")
    print(f"=== {title}: {time.monotonic() - start:.0f} s ===", flush=True)


def count_labels(folder: Path) -> int:
    """The labelled objects of a synthetic set, as Detectron2 reads it."""
    name = "coigan_demo_augmented"
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    register_coco_instances(name, {}, str(folder / "annotations.json"), str(folder / "images"))
    return sum(len(record["annotations"]) for record in DatasetCatalog.get(name))


if __name__ == "__main__":
    sys.exit(run_command_line(main))
