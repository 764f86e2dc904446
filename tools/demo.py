#!/usr/bin/env python
"""Toy data, a GAN Mask R-CNN trained on it, its official scores, and a report: everything from nothing on a CPU.

    python tools/demo.py [--out output/demo] [--train 120] [--val 20] [--seed 0] [--size 512x256] [--iters N]

The last line on stdout holds the scores and the path of the report. A later demo in the same folder replaces the run.
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from gan_plugin.errors import UserError, run_command_line
from gan_plugin.metrics import final_evaluation, read_metrics

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml"
SCORES = ("cityscapes/AP", "cityscapes/AP50", "segm/AP")
# says that a folder is a demo's and may be deleted by the next one
MARKER = ".made_by_demo"


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
    clear_run(run)
    numbers = ["--train", args.train, "--val", args.val, "--seed", args.seed]
    do_step("1/3 Toy data", "make_toy_cityscapes.py", [datasets, *numbers, "--size", args.size], datasets)
    options = [] if args.iters is None else ["SOLVER.MAX_ITER", args.iters]
    do_step(
        "2/3 Training and evaluation",
        "train_net.py",
        ["--config-file", os.path.relpath(CONFIG), "OUTPUT_DIR", run, *options],
        datasets,
    )
    do_step("3/3 Report", "visualize.py", [run, "--out", report], datasets)
    ap, ap50, coco_ap = read_scores(run / "metrics.json")
    shown = os.path.relpath(report) if report.resolve().is_relative_to(Path.cwd()) else report
    print(f"demo: Cityscapes AP {ap:.2f} AP50 {ap50:.2f} (official), COCO segm AP {coco_ap:.2f}, report {shown}")


def clear_run(folder: Path) -> None:
    """Leave `folder` empty but for the marker.

    Raises:
        UserError: it holds something that no demo made, or cannot be written.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if not (folder / MARKER).is_file():
                raise UserError(f"{folder} holds files that are not of a demo; move them away or choose another --out.")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); choose another --out.") from error


def do_step(title: str, tool: str, arguments: list[object], datasets: Path) -> None:
    """Run one of the tools with its output shown, under a heading and with the seconds it took.

    Raises:
        UserError: the tool failed; it has said why.
    """
    print(f"\n=== {title} ===", flush=True)
    start = time.monotonic()
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    code = subprocess.run(command, env={**os.environ, "DETECTRON2_DATASETS": str(datasets)}, check=False).returncode
    if code:
        raise UserError(f"The demo's step {title} failed (exit code {code}); the reason is above.")
    print(f"=== {title}: {time.monotonic() - start:.0f} s ===", flush=True)


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
