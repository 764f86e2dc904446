#!/usr/bin/env python
"""What the adversaries cost: steps of all variants, inference and pooling side by side, as ratios.

    python tools/benchmark.py [--size WxH] [--batch N] [--rounds N] [--json FILE] [KEY VALUE ...]

Every round runs each variant once in turn, so that a busy machine slows all alike; ratios are to the plain Mask R-CNN
of the same round. The images are random with elliptic objects: they cost what real ones of that size do. KEY VALUE
pairs change both configs, such as MODEL.DEVICE cuda SOLVER.AMP.ENABLED True.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command_line import Parser, positive, run_command_line, width_x_height

if TYPE_CHECKING:
    from detectron2.config import CfgNode

ROOT = Path(__file__).resolve().parents[1]
QUICK = ROOT / "configs/quick_schedules"
# what measures, ours and the projects'
sys.path[:0] = [str(ROOT), *(str(ROOT / "projects" / name) for name in ("CarGAN", "COIGAN"))]
PRROI = "PrRoI, gradient to features and boxes"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    pixel, feature = (QUICK / f"gan_mask_rcnn_cityscapes{name}_quick.yaml" for name in ("", "_feature"))
    parser.add_argument("--config-file", default=str(pixel), metavar="FILE", help="with the pixel discriminator")
    parser.add_argument("--feature-config", default=str(feature), metavar="FILE", help="with the paper's two")
    parser.add_argument("--size", type=width_x_height, default=(512, 256), metavar="WxH", help="image size in pixels")
    parser.add_argument("--batch", type=positive, default=2, help="images of a step")
    parser.add_argument(
        "--rounds", type=positive, default=12, help="of each variant; training steps have 4 times as many"
    )
    parser.add_argument("--images", type=positive, default=4, help="images of the comparison of Cityscapes evaluators")
    parser.add_argument("--cars-batch", type=int, default=64, metavar="N", help="images of a step of CarGAN; 0: none")
    parser.add_argument("--coigan-width", type=positive, default=32, metavar="N", help="of COIGAN's first layer")
    parser.add_argument("--batches", type=positive, default=20, metavar="N", help="of COIGAN's loader that are timed")
    parser.add_argument("--json", default="output/bench.json", metavar="FILE", help="where the numbers go")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")
    args = parser.parse_args(arguments)
    if args.cars_batch < 0:
        parser.error(f"--cars-batch is {args.cars_batch}; set it to 0 or more")
    return args


def load_variants(args: argparse.Namespace) -> "dict[str, CfgNode]":
    """The config of every variant."""
    from benchmarks.training import MODES, variant_cfg
    from gan_plugin.engine.setup import load_config

    pixel, feature = (
        load_config(argparse.Namespace(config_file=path, opts=args.opts))
        for path in (args.config_file, args.feature_config)
    )
    return {name: variant_cfg(pixel, feature, name) for name in MODES}


def backbone_of(cfg: "CfgNode") -> str:
    """What a table calls the backbone."""
    from gan_plugin.modeling.timm_backbone import BUILDER

    return cfg.MODEL.TIMM.NAME if cfg.MODEL.BACKBONE.NAME == BUILDER else f"ResNet-{cfg.MODEL.RESNETS.DEPTH}"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All tables, and the ratios that sum them up."""
    import torch
    from _benchmark_cars import measure_cars
    from _benchmark_coigan import measure_coigan, measure_loading
    from _benchmark_penalties import measure_penalties

    from benchmarks.cityscapes import measure_cityscapes
    from benchmarks.pooling import measure_pooling
    from benchmarks.training import make_batch, measure_inference, measure_memory, measure_training

    configs = load_variants(args)
    batch = make_batch(args.batch, *args.size, configs["plain"].MODEL.ROI_HEADS.NUM_CLASSES)
    device = configs["plain"].MODEL.DEVICE
    tables = {
        # more rounds: a step takes as long as the objects that it samples are many
        "training step": measure_training(configs, batch, 4 * args.rounds),
        "inference": measure_inference(configs, batch, args.rounds),
        "pooling": measure_pooling(args.rounds, device),
        "COIGAN training step": measure_coigan(args.rounds, device, width=args.coigan_width),
        **measure_penalties(args.rounds, device, args.coigan_width),
    }
    training = {name: row["ratio_median"] for name, row in tables["training step"].items() if name != "plain"}
    # fewer rounds: these networks are large
    cars = measure_cars(args.cars_batch, max(1, args.rounds // 4), device) if args.cars_batch else None
    return {
        "cars": cars,
        "coigan_loader": measure_loading(args.batches),
        "train_ratio": {name.replace(" ", "_"): ratio for name, ratio in training.items()},
        "adversaries_share": {name.replace(" ", "_"): 1 - 1 / ratio for name, ratio in training.items()},
        "inference_ratio": tables["inference"]["adversarial"]["ratio_median"],
        "prroi_vs_roialign": tables["pooling"][PRROI]["ratio_median"],
        "cityscapes_evaluator": measure_cityscapes(args.images, 100, 2048, 1024),
        "peak_memory": measure_memory(configs, batch),
        "tables": tables,
        "size": "x".join(map(str, args.size)),
        "batch": args.batch,
        "rounds": args.rounds,
        "backbone": backbone_of(configs["plain"]),
        "device": torch.cuda.get_device_name() if device != "cpu" else f"CPU, {torch.get_num_threads()} threads",
    }


def show(report: dict[str, Any]) -> str:
    """The tables as text."""
    from _benchmark_cars import show_cars
    from tabulate import tabulate

    from benchmarks.pooling import BASELINE

    memory = report["peak_memory"]
    rows = [
        [part, name, *list(row.values())[:4], memory.get(name, {}).get("MB") if part == "training step" else None]
        for part, table in report["tables"].items()
        for name, row in table.items()
    ]
    headers = ["what", "variant", "median s", "ratio min", "ratio median", "ratio max", "peak MB"]
    formats = ("", "", ".4f", ".3f", ".3f", ".3f", ".0f")
    evaluator = report["cityscapes_evaluator"]
    return tabulate(rows, headers=headers, floatfmt=formats, tablefmt="github") + (
        f"\nRatios to the first row of each part ({BASELINE} for pooling), of the same round; {report['device']}. "
        f"Training and inference of {report['backbone']} at {report['size']}, batch {report['batch']}."
        f"\nCityscapes AP, {evaluator['images']} images of {evaluator['size']} with {evaluator['instances']} objects: "
        f"official {evaluator['seconds']['official']:.1f} s, fast {evaluator['seconds']['fast']:.2f} s, "
        f"{evaluator['speedup']['fast']:.0f} times faster; greatest difference {evaluator['difference']:.1g}."
        + (f"\n{show_cars(report['cars'])}" if report["cars"] else "")
        + "\nCOIGAN's loader, samples of 64x64 a second: "
        + ", ".join(f"{workers} worker(s) {rate:.0f}" for workers, rate in report["coigan_loader"].items())
    )


def work(args: argparse.Namespace) -> None:
    """Measure, print the tables, write the numbers."""
    from gan_plugin.errors import as_user_error
    from gan_plugin.files import write_whole

    out = Path(args.json)
    with as_user_error(f"--json {out} cannot be written", "name another file", OSError):
        out.parent.mkdir(parents=True, exist_ok=True)
    report = measure(args)
    print(show(report))
    line = json.dumps(report)
    print(line)
    write_whole(str(out), line + "\n", "Name another file with --json.")


def main(arguments: list[str] | None = None) -> None:
    work(parse(arguments))


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
