#!/usr/bin/env python
"""Toy steel, a COIGAN trained on it, its scores, 20 synthetic images with labels, and a report: from nothing on a CPU.

    python projects/COIGAN/demo_coigan.py [--out output/demo-coigan] [--iters N] [--seed 0]

The last line on stdout holds the scores and the path of the report. A later demo in the same folder replaces the run.
"""

import argparse
import json
import sys
from pathlib import Path

import inpaint
from _command_line import Parser, positive, run_command_line

PROJECT = Path(__file__).resolve().parent
SHEETS, SIZE, TILE, PAINTED = 120, "64x400", 64, 20


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("output/demo-coigan"), metavar="DIR")
    parser.add_argument("--iters", type=positive, metavar="N", help="iterations of training; default: the config's")
    parser.add_argument("--seed", type=int, default=0, help="of toy data and training")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """All steps, and a line with the scores."""
    from gan_plugin.demos import clear_folder, shown_path

    clear_folder(args.out)
    toy, data, run, augmented = (args.out / name for name in ("toy", "data", "run", "augmented"))
    options = ["OUTPUT_DIR", run, "SEED", args.seed, *([] if args.iters is None else ["SOLVER.MAX_ITER", args.iters])]
    weights = run / "model_final.pth"
    steps: dict[str, list[object]] = {
        "1/6 Toy steel": ["toy", toy, "--count", SHEETS, "--size", SIZE, "--seed", args.seed],
        "2/6 Split, tiles, objects": ["prepare", toy, data, "--tile", TILE],
        "3/6 Training": ["train", "--config-file", PROJECT / "configs/toy.yaml", "--data", data, *options],
        "4/6 Scores": ["evaluate", weights, "--count", 300],
        "5/6 Synthetic images": ["augment", weights, "--out", augmented, "--count", PAINTED, "--clean", 0],
        "6/6 Report": ["report", run, "--out", args.out / "report.html", "--augmented", augmented],
    }
    for title, words in steps.items():
        do_step(title, [str(word) for word in words])
    scores = json.loads((run / "report.json").read_text(encoding="utf-8"))
    painted, real = (scores[name]["FID"] for name in ("painted_vs_test", "train_vs_test"))
    print(
        f"demo-coigan: FID {painted:.2f} painted vs test, {real:.2f} train vs test ({scores['extractor']}), "
        f"{PAINTED} synthetic images with {count_labels(augmented)} labelled defects, "
        f"report {shown_path(args.out / 'report.html')}"
    )


def do_step(title: str, words: list[str]) -> None:
    """Run one verb, announced.

    Raises:
        UserError: it failed or was stopped.
    """
    from gan_plugin.demos import announced
    from gan_plugin.errors import UserError

    with announced(title):
        if code := inpaint.main(words):
            raise UserError(f"The demo's step {title} ended with exit code {code}; the reason is above.")


def count_labels(folder: Path) -> int:
    """The labelled objects of a synthetic set, as Detectron2 reads it."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    name = "coigan_demo_augmented"
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    register_coco_instances(name, {}, str(folder / "annotations.json"), str(folder / "images"))
    return sum(len(record["annotations"]) for record in DatasetCatalog.get(name))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
