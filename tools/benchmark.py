#!/usr/bin/env python
"""What the discriminator costs: plain, joint and alternating steps side by side in one process.

    python tools/benchmark.py [--config-file FILE] [--size WxH] [--batch N] [--rounds N] [--json FILE] [KEY VALUE ...]

Every round runs one step of each variant in turn, so that a busy machine slows all alike; the table shows the ratio to
the plain step of the same round. The images are random with elliptic objects: they cost what real ones of that size do.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.setup import load_config
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.errors import UserError, run_command_line
from gan_plugin.modeling.meta_arch import discriminator_parameters

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs/quick_schedules/gan_mask_rcnn_cityscapes_quick.yaml"
OBJECTS = 8


def make_batch(count: int, width: int, height: int, classes: int) -> list[dict[str, Any]]:
    """`count` model inputs of the given size in pixels with OBJECTS ellipses each, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    batch = []
    for _ in range(count):
        masks = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
        for mask in masks:
            y, x, h, w = (torch.rand(4, generator=generator) * 0.5 + torch.tensor([0.25, 0.25, 0.05, 0.05])).tolist()
            mask |= ((rows / height - y) / h) ** 2 + ((columns / width - x) / w) ** 2 < 0.25
        truth = Instances((height, width))
        truth.gt_masks = BitMasks(masks)
        truth.gt_boxes = truth.gt_masks.get_bounding_boxes()
        truth.gt_classes = torch.arange(OBJECTS) % classes
        image = torch.rand(3, height, width, generator=generator) * 255
        batch.append({"image": image, "instances": truth, "height": height, "width": width})
    return batch


def make_step(cfg: CfgNode, mode: str, batch: list[dict[str, Any]]) -> JointStep | AlternatingStep:
    """The training step of one variant: "plain", "joint" or "alternating", all with the same initial weights."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.GAN.ENABLED = mode != "plain"
    cfg.MODEL.GAN.MODE = "alternating" if mode == "alternating" else "joint"
    cfg.MODEL.GAN.START_ITER = 0
    torch.manual_seed(0)
    model = build_model(cfg)
    if mode != "alternating":
        return JointStep(model, itertools.repeat(batch), build_generator_optimizer(cfg, model))
    disc = discriminator_parameters(model)
    optimizers = build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)
    return AlternatingStep(model, itertools.repeat(batch), *optimizers, cfg.MODEL.GAN.ORDER)


def timed(action: Callable[[], Any], device: str) -> float:
    """Seconds that `action` takes, including what it leaves running on a GPU."""
    start = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleave(actions: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every action in every round; one round before, for warming up, does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            elapsed = timed(action, device)
            if number:
                seconds[name].append(elapsed)
    return seconds


def summarise(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median seconds of each variant, and min, median and max of its ratio to "plain" in the same round."""
    table = {}
    for name, values in seconds.items():
        ratios = [value / plain for value, plain in zip(values, seconds["plain"], strict=True)]
        table[name] = {
            "seconds": statistics.median(values),
            "ratio_min": min(ratios),
            "ratio_median": statistics.median(ratios),
            "ratio_max": max(ratios),
        }
    return table


def measure(cfg: CfgNode, batch: list[dict[str, Any]], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Training step and inference of every variant."""
    steps = {mode: make_step(cfg, mode, batch) for mode in ("plain", "joint", "alternating")}
    device = cfg.MODEL.DEVICE
    with EventStorage(0):
        for step in steps.values():
            step.iter = 0
        training = interleave({name: step.run_step for name, step in steps.items()}, rounds, device)
    models = {"plain": steps["plain"].model.eval(), "adversarial": steps["joint"].model.eval()}
    # The same weights on both sides, or the number of detections would decide.
    models["plain"].load_state_dict(models["adversarial"].state_dict(), strict=False)

    def infer(model: torch.nn.Module) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return model(batch)

        return run

    inference = interleave({name: infer(model) for name, model in models.items()}, rounds, device)
    return {"training step": summarise(training), "inference": summarise(inference)}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default=str(DEFAULT_CONFIG), metavar="FILE")
    parser.add_argument("--size", default="512x256", metavar="WxH", help="image size in pixels")
    parser.add_argument("--batch", type=int, default=2, help="images of a step")
    parser.add_argument("--rounds", type=int, default=12, help="how often each variant is timed")
    parser.add_argument("--json", metavar="FILE", help="also write the table there")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    try:
        width, height = (int(side) for side in args.size.split("x"))
    except ValueError as error:
        raise UserError(f"--size is {args.size!r}; write it as WIDTHxHEIGHT, such as 512x256.") from error
    if min(width, height, args.batch, args.rounds) < 1:
        raise UserError("--size, --batch and --rounds must be positive.")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise UserError(f"--json {args.json} lies in a folder that does not exist; name another file.")
    cfg = load_config(args)
    table = measure(cfg, make_batch(args.batch, width, height, cfg.MODEL.ROI_HEADS.NUM_CLASSES), args.rounds)
    rows = [[part, name, *row.values()] for part, variants in table.items() for name, row in variants.items()]
    headers = ["what", "variant", "median s", "ratio min", "ratio median", "ratio max"]
    print(tabulate(rows, headers=headers, floatfmt=".3f", tablefmt="github"))
    report = {"config": args.config_file, "size": args.size, "batch": args.batch, "threads": torch.get_num_threads()}
    line = json.dumps({**report, "rounds": args.rounds, "results": table})
    print(line)
    if args.json:
        Path(args.json).write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_command_line(main))
