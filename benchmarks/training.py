"""What the adversaries cost in training, at inference, and in memory."""

import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage

from benchmarks.timing import Table, interleave, summarise
from gan_plugin.engine.optimizers import build_discriminator_optimizer, build_generator_optimizer
from gan_plugin.engine.steps import AlternatingStep, JointStep
from gan_plugin.modeling.meta_arch import discriminator_parameters

OBJECTS = 8
MODES = {"plain": "", "pixel": "alternating", "pixel joint": "joint", "feature_box": "alternating"}
MODES["feature_box joint"] = "joint"
MEMORY_STEPS = 3

Batch = list[dict[str, Any]]


def make_batch(count: int, width: int, height: int, classes: int) -> Batch:
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


def variant_cfg(pixel: CfgNode, feature: CfgNode, variant: str) -> CfgNode:
    """The config of a variant: one of MODES."""
    cfg = (feature if variant.startswith("feature") else pixel).clone()
    cfg.defrost()
    cfg.MODEL.GAN.ENABLED = variant != "plain"
    cfg.MODEL.GAN.MODE = MODES[variant] or "joint"
    cfg.MODEL.GAN.START_ITER = cfg.MODEL.GAN.WARMUP_ITERS = 0
    return cfg


def make_step(cfg: CfgNode, batch: Batch) -> JointStep | AlternatingStep:
    """The training step of a config, on one batch again and again; the generator's initial weights are always equal."""
    torch.manual_seed(0)
    model = build_model(cfg)
    amp = cfg.SOLVER.AMP.ENABLED
    if cfg.MODEL.GAN.MODE == "joint":
        return JointStep(model, itertools.repeat(batch), build_generator_optimizer(cfg, model), amp=amp)
    disc = discriminator_parameters(model)
    optimizers = build_generator_optimizer(cfg, model, exclude=disc), build_discriminator_optimizer(cfg, disc)
    return AlternatingStep(model, itertools.repeat(batch), *optimizers, cfg.MODEL.GAN.ORDER, amp=amp)


def measure_training(configs: dict[str, CfgNode], batch: Batch, rounds: int) -> Table:
    """One step of every variant in turn, `rounds` times, against "plain"."""
    steps = {name: make_step(cfg, batch) for name, cfg in configs.items()}
    with EventStorage(0):
        for step in steps.values():
            step.iter = 0
        actions = {name: step.run_step for name, step in steps.items()}
        return summarise(interleave(actions, rounds, configs["plain"].MODEL.DEVICE), "plain")


def measure_inference(configs: dict[str, CfgNode], batch: Batch, rounds: int) -> Table:
    """The plain model, again the plain model (the noise of the measurement), and the adversarial one."""
    models = {}
    for name in ("plain", "plain again", "adversarial"):
        torch.manual_seed(0)
        models[name] = build_model(configs["feature_box" if name == "adversarial" else "plain"]).eval()
    # The same weights everywhere, or the number of detections would decide.
    for model in models.values():
        model.load_state_dict(models["plain"].state_dict(), strict=False)

    def infer(model: torch.nn.Module) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return model(batch)

        return run

    actions = {name: infer(model) for name, model in models.items()}
    return summarise(interleave(actions, rounds, configs["plain"].MODEL.DEVICE), "plain")


def measure_memory(configs: dict[str, CfgNode], batch: Batch) -> dict[str, dict[str, float]]:
    """Peak memory in MB that the training of each variant takes beyond its imports, each in a process of its own."""
    megabytes = {}
    for name, cfg in configs.items():
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            megabytes[name] = pool.apply(peak_memory, (cfg, batch, torch.get_num_threads()))
    return {name: {"MB": value, "ratio": value / megabytes["plain"]} for name, value in megabytes.items()}


def peak_memory(cfg: CfgNode, batch: Batch, threads: int) -> float:
    """Peak memory in MB of a few training steps: of the GPU, or of this process beyond what it had before."""
    torch.set_num_threads(threads)
    before = _megabytes("VmRSS")
    step = make_step(cfg, batch)
    with EventStorage(0):
        step.iter = 0
        for _ in range(MEMORY_STEPS):
            step.run_step()
    if cfg.MODEL.DEVICE != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return _megabytes("VmHWM") - before


def _megabytes(field: str) -> float:
    # Not getrusage, whose peak a process inherits from the one that started it.
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 2**10
