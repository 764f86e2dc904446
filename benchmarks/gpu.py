"""The parts of tools/gpu_check.py, each run in a process of its own; every one returns what goes into the report."""

import json
import math
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# the kernels, and all else that differs on a GPU
TEST_FILES = ("tests/layers/test_prroi_pool_triton.py", "tests/engine/test_devices.py")
CONFIG = "configs/gan_mask_rcnn_cityscapes.yaml"
# Random weights: batch norm and inputs near 1 keep float16 from overflowing in a network that has learnt nothing.
RANDOM_WEIGHTS = [
    *("MODEL.WEIGHTS", "", "MODEL.PIXEL_STD", "[57.375,57.12,58.395]"),
    *("MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0"),
]
# the same network on a CPU, in miniature
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "8", "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "MODEL.RPN.PRE_NMS_TOPK_TRAIN", "100"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "50"),
    *("MODEL.GAN.MASK.INPUT_SIZE", "32", "MODEL.GAN.MASK.CHANNELS", "(8,8,8,8)"),
    *("INPUT.MIN_SIZE_TRAIN", "(128,)", "SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "0"),
]

Report = dict[str, Any]


def run_tests(on_cpu: bool) -> Report:
    """Counts of the tests that use the device, and the names of those that failed.

    Raises:
        RuntimeError: a test failed, or none ran.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # the kernels in Triton's interpreter are for machines without a GPU, and part of `make test`
        options = ["-q", "-k", "not interpreter", "-p", "no:cacheprovider", f"--junitxml={report}"]
        subprocess.run([sys.executable, "-m", "pytest", *options, *TEST_FILES], cwd=ROOT, check=False)
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {key: sum(int(s.get(key, 0)) for s in suites) for key in ("tests", "failures", "errors", "skipped")}
    cases = [case for suite in suites for case in suite.iter("testcase")]
    bad = [case.get("name") for case in cases if {"failure", "error"} & {child.tag for child in case}]
    if bad or not cases:
        raise RuntimeError(f"{len(bad)} of {len(cases)} tests failed: {', '.join(map(str, bad))}")
    return counts


def measure_steps(on_cpu: bool) -> Report:
    """A training step of every variant as a ratio to the plain one: R50-FPN, 1024x2048, batch 8, mixed precision."""
    import torch

    from benchmarks.training import MODES, make_batch, measure_training, variant_cfg

    device, size, count, rounds = ("cpu", (96, 64), 1, 1) if on_cpu else ("cuda", (2048, 1024), 8, 8)
    # frozen statistics and stages as in fine-tuning; steps too small to harm weights that have learnt nothing
    keys = ["MODEL.DEVICE", device, "SOLVER.AMP.ENABLED", "True", "SOLVER.BASE_LR", "1e-8", *RANDOM_WEIGHTS[:4]]
    form = "configs/quick_schedules/{}_quick.yaml" if on_cpu else "configs/{}.yaml"
    pixel, feature = (_config(form.format(f"gan_mask_rcnn_cityscapes{kind}"), keys) for kind in ("", "_feature"))
    configs = {name: variant_cfg(pixel, feature, name) for name in MODES}
    table = measure_training(configs, make_batch(count, *size, pixel.MODEL.ROI_HEADS.NUM_CLASSES), rounds)
    peak = None if on_cpu else torch.cuda.max_memory_allocated() / 2**30
    return {"size": "x".join(map(str, size)), "batch": count, "rounds": rounds, "table": table, "peak_GiB_of_all": peak}


def measure_pool(on_cpu: bool) -> Report:
    """PrRoI pooling against RoIAlign, forward and backward; on a GPU with the share of the copying bandwidth."""
    from benchmarks.pooling import measure_pooling

    return {"table": measure_pooling(1 if on_cpu else 30, "cpu" if on_cpu else "cuda")}


def train(on_cpu: bool, weights: str = "", iterations: int = 60) -> Report:
    """Iterations of the Cityscapes config in mixed precision on generated pictures; the losses that it logged last.

    Args:
        on_cpu: a narrow network, small pictures and few iterations.
        weights: of MODEL.WEIGHTS, "" for random ones.
        iterations: on a GPU.

    Raises:
        RuntimeError: training ended early, or a loss is not finite.
    """
    from gan_plugin.data.toy_cityscapes import write_toy_cityscapes

    size, count = ((256, 128), 2) if on_cpu else ((2048, 1024), 16)
    iterations = 4 if on_cpu else iterations
    with tempfile.TemporaryDirectory() as folder:
        write_toy_cityscapes(folder, count, 1, 0, size)
        keys = [
            *(["MODEL.WEIGHTS", weights] if weights else RANDOM_WEIGHTS),
            *("SOLVER.AMP.ENABLED", "True", "SOLVER.MAX_ITER", str(iterations), "SOLVER.STEPS", "()"),
            *("MODEL.GAN.START_ITER", str(iterations // 4), "DATASETS.TEST", "()", "TEST.EVAL_PERIOD", "0"),
            *("SOLVER.CHECKPOINT_PERIOD", "100000", "OUTPUT_DIR", f"{folder}/run", "TEST.BEST_METRIC", ""),
            *(SMALL if on_cpu else []),
        ]
        command = [sys.executable, "tools/train_net.py", "--config-file", CONFIG, *keys]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "DETECTRON2_DATASETS": folder}, check=True)
        lines = [json.loads(line) for line in Path(folder, "run/metrics.json").read_text().splitlines()]
    last = {key: value for line in lines for key, value in line.items()}
    losses = {key: value for key, value in last.items() if "loss" in key}
    if last["iteration"] != iterations - 1 or not all(map(math.isfinite, losses.values())):
        raise RuntimeError(f"after iteration {last['iteration']} of {iterations} the losses are {losses}")
    extra = {key: last[key] for key in ("time", "data_time", "grad_scale") if key in last}
    return {"weights": weights or "random", "iterations": iterations, "losses": losses, **extra}


def _config(path: str, keys: list[str]) -> Any:
    from argparse import Namespace

    from gan_plugin.engine.setup import load_config

    return load_config(Namespace(config_file=str(ROOT / path), opts=keys))


# name -> its function, and its share of the time; the first ones matter most
PARTS: dict[str, tuple[Callable[..., Report], float]] = {
    "tests": (run_tests, 0.35),
    "training": (train, 0.25),
    "steps": (measure_steps, 0.3),
    "pooling": (measure_pool, 0.1),
}


def run_part(name: str, on_cpu: bool, weights: str, result: Path) -> None:
    """Run one part in this process and write its report to `result`; errors as of the part."""
    function = partial(train, weights=weights) if name == "training" else PARTS[name][0]
    result.write_text(json.dumps(function(on_cpu)))
