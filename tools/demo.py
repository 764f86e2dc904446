#!/usr/bin/env python
"""Toy data, a GAN Mask R-CNN trained on it, its official scores, and a report: everything from nothing on a CPU.

    python tools/demo.py [--out output/demo] [--train 120] [--val 20] [--seed 0] [--size 512x256] [--iters N]

The last line on stdout holds the scores and the path of the report. A later demo in the same folder replaces the run.
"""

import argparse
import math
import os
import sys
from pathlib import Path

from gan_plugin.demos import clear_folder, run_script, shown_path
from gan_plugin.errors import UserError, run_command_line
from gan_plugin.metrics import final_evaluation, read_metrics

TOOLS = Path(__file__).resolve().parent
CONFIG = TOOLS.parent / "configs/quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml"
SCORES = ("cityscapes/AP", "cityscapes/AP50", "segm/AP")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("output/demo"), metavar="DIR")
    parser.add_argument("--train", type=int, default=120, metavar="N", help="pictures to train on")
    parser.add_argument("--val", type=int, default=20, metavar="N", help="pictures to evaluate on")
    parser.add_argument("--seed", type=int, default=0, help="of the toy data")
    parser.add_argument("--size", default="512x256", metavar="WxH", help="of each picture in pixels")
    parser.add_argument("--iters", type=int, metavar="N", help="iterations of training; default: the config's")
    args = parser.parse_args(arguments)
    datasets, run, report = args.out / "datasets", args.out / "run", args.out / "report.html"
    clear_folder(run)
    where = {"DETECTRON2_DATASETS": str(datasets)}
    numbers = ["--train", args.train, "--val", args.val, "--seed", args.seed]
    run_script("1/3 Toy data", TOOLS / "make_toy_cityscapes.py", [datasets, *numbers, "--size", args.size], where)
    options = [] if args.iters is None else ["SOLVER.MAX_ITER", args.iters]
    run_script(
        "2/3 Training and evaluation",
        TOOLS / "train_net.py",
        ["--config-file", os.path.relpath(CONFIG), "OUTPUT_DIR", run, *options],
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
    evaluation = final_evaluation(read_metrics(metrics_file))
    scores = [evaluation.get(key, math.nan) for key in SCORES]
    for key, score in zip(SCORES, scores, strict=True):
        if not math.isfinite(score):
            raise UserError(f"{metrics_file} holds no {key}; train longer or give more test pictures (--iters, --val).")
    return scores


if __name__ == "__main__":
    sys.exit(run_command_line(main))
