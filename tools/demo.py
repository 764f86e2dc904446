#!/usr/bin/env python
"""Toy data, a GAN Mask R-CNN trained on it, its official scores, and a report: everything from nothing on a CPU.

    python tools/demo.py [--out output/demo] [--train 120] [--val 20] [--seed 0] [--size 512x256] [--iters N]

The last line on stdout holds the scores and the path of the report. A later demo in the same folder replaces the run.
"""

import argparse
import math
import os
import sys
from functools import partial
from pathlib import Path

from _command_line import Parser, positive, run_command_line, width_x_height

TOOLS = Path(__file__).resolve().parent
CONFIG = "quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml"
SCORES = ("cityscapes/AP", "cityscapes/AP50", "segm/AP")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("output/demo"), metavar="DIR")
    parser.add_argument("--train", type=int, default=120, metavar="N", help="pictures to train on")
    parser.add_argument("--val", type=int, default=20, metavar="N", help="pictures to evaluate on")
    parser.add_argument("--seed", type=int, default=0, help="of the toy data")
    parser.add_argument("--size", type=width_x_height, default=(512, 256), metavar="WxH", help="of each, in pixels")
    parser.add_argument("--iters", type=positive, metavar="N", help="iterations of training; default: the config's")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """Make the data, train, write the report, print the scores."""
    from gan_plugin.demos import clear_folder, run_script, shown_path
    from gan_plugin.model_zoo import get_config_file

    datasets, run, report = args.out / "datasets", args.out / "run", args.out / "report.html"
    clear_folder(run)
    where = {"DETECTRON2_DATASETS": str(datasets)}
    size = "x".join(map(str, args.size))
    numbers = ["--train", args.train, "--val", args.val, "--seed", args.seed, "--size", size]
    run_script("1/3 Toy data", TOOLS / "make_toy_cityscapes.py", [datasets, *numbers], where)
    options = [] if args.iters is None else ["SOLVER.MAX_ITER", args.iters]
    run_script(
        "2/3 Training and evaluation",
        TOOLS / "train_net.py",
        ["--config-file", os.path.relpath(get_config_file(CONFIG)), "OUTPUT_DIR", run, *options],
        where,
    )
    run_script("3/3 Report", TOOLS / "visualize.py", [run, "--out", report], where)
    ap, ap50, coco_ap = read_scores(run / "metrics.json")
    scores = f"Cityscapes AP {ap:.2f} AP50 {ap50:.2f} (official), COCO segm AP {coco_ap:.2f}"
    print(f"demo: {scores}, report {shown_path(report)}")


def read_scores(metrics_file: Path) -> list[float]:
    """SCORES of the last evaluation, in percent.

    Raises:
        UserError: one of them is missing or NaN.
    """
    from gan_plugin.errors import UserError
    from gan_plugin.metrics import final_evaluation, read_metrics

    evaluation = final_evaluation(read_metrics(metrics_file))
    scores = [evaluation.get(key, math.nan) for key in SCORES]
    for key, score in zip(SCORES, scores, strict=True):
        if not math.isfinite(score):
            raise UserError(f"{metrics_file} holds no {key}; train longer or give more test pictures (--iters, --val).")
    return scores


def main(arguments: list[str] | None = None) -> None:
    work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
