#!/usr/bin/env python
"""Toy steel, a COIGAN trained on it, its scores, 20 synthetic images with labels, and a report: from nothing on a CPU.

    python projects/COIGAN/demo_coigan.py [--out output/demo-coigan] [--iters N] [--seed 0]

The last line on stdout holds the crop FID of painted, copied, unpainted and real objects, the invisible labels, and the
path of the report. A later demo in the same folder replaces the run.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import inpaint
from _command_line import Parser, positive, run_command_line

PROJECT = Path(__file__).resolve().parent
SHEETS, SIZE, TILE, PAINTED, SCORED = 120, "64x400", 64, 20, 200


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("output/demo-coigan"), metavar="DIR")
    parser.add_argument("--iters", type=positive, metavar="N", help="iterations of training; default: the config's")
    parser.add_argument("--seed", type=int, default=0, help="of toy data and training")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """All steps, and a line with the scores."""
    from gan_plugin.demos import clear_folder

    clear_folder(args.out)
    data, run, augmented = (args.out / name for name in ("data", "run", "augmented"))
    toy = ["--toy-count", SHEETS, "--toy-size", SIZE, "--toy-seed", args.seed]
    options = ["OUTPUT_DIR", run, "SEED", args.seed, *([] if args.iters is None else ["SOLVER.MAX_ITER", args.iters])]
    weights = run / "model_final.pth"
    steps: dict[str, list[object]] = {
        "1/5 Toy steel: split, tiles, objects": ["prepare", "toy", data, "--tile", TILE, *toy],
        "2/5 Training": ["train", "--config-file", PROJECT / "configs/toy.yaml", "--data", data, *options],
        "3/5 Scores": ["evaluate", weights, "--count", SCORED, "--crops", SCORED],
        "4/5 Synthetic images": ["augment", weights, "--out", augmented, "--count", PAINTED, "--clean", 0],
        "5/5 Report": ["report", run, "--out", args.out / "report.html", "--augmented", augmented],
    }
    for title, words in steps.items():
        do_step(title, [str(word) for word in words])
    print(last_line(json.loads((run / "report.json").read_text(encoding="utf-8")), augmented, args.out / "report.html"))


def last_line(report: dict[str, Any], augmented: Path, page: Path) -> str:
    """Crop FID of each row, invisible labels, and where the report is."""
    from coigan.evaluation.crops import POOLED

    from gan_plugin.demos import shown_path

    crops = report["crops"]
    rows = crops["scores"][POOLED]["rows"]
    names = ("painted", "copied", "unpainted", "real")
    fids = ", ".join(f"{rows[name]['FID']:.1f} {name}" if name in rows else f"none {name}" for name in names)
    invisible, labels = crops["invisible_labels"]["painted"]
    return (
        f"demo-coigan: crop FID {fids} ({crops['extractor']}), invisible labels {invisible} of {labels}, "
        f"{PAINTED} synthetic images with {count_labels(augmented)} labelled defects, report {shown_path(page)}"
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
