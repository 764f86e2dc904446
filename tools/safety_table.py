#!/usr/bin/env python
"""Do the adversarial terms leave a model alive that has learnt already? Short runs from the same weights, as a table.

    DETECTRON2_DATASETS=folder/of/PennFudanPed python tools/safety_table.py --output DIR [KEY VALUE ...]

A plain small Mask R-CNN is trained on PennFudan. From its weights every system below trains on with the learning rate,
the weight decay, the discriminator's optimizer and MODEL.GAN of its config, the game and the full rate from the first
iteration, no clipping; only the networks and pictures are small. Compared is loss_mask, the mean of a run's last third,
with that of the plain model on the same batches. KEY VALUE pairs go over the configs of the adversarial runs. What is
finished in DIR is not run again; several commands with different --seeds may fill the same DIR.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _command_line import Parser, positive, run_command_line

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from gan_plugin import AdversarialTrainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PIXEL, FEATURE = "gan_mask_rcnn_cityscapes.yaml", "gan_mask_rcnn_cityscapes_feature.yaml"
THESIS, PAPER = "thesis/gan_mask_rcnn_cityscapes.yaml", "paper/gan_mask_rcnn_cityscapes.yaml"
# (config, mode), each after the plain run that it is compared with
SYSTEMS = [
    *[(PIXEL, mode) for mode in ("plain", "joint", "alternating")],
    *[(THESIS, mode) for mode in ("joint", "alternating")],
    *[(FEATURE, mode) for mode in ("plain", "joint", "alternating")],
    *[(PAPER, mode) for mode in ("joint", "alternating")],
]
PLAIN_OF = {THESIS: PIXEL, PAPER: FEATURE}
# those of the quick configs
SMALL_MASK = {
    PIXEL: {"INPUT_SIZE": 32, "CHANNELS": (16, 32, 64, 64), "NORM": "GN"},
    FEATURE: {"CHANNELS": (16, 32, 64, 64, 128), "NORM": "GN"},
}
SMALL_BOX = {"CHANNELS": (32, 64, 64), "NORM": "GN"}


def load(name: str) -> "CfgNode":
    """A config of the repository, to be changed."""
    from gan_plugin.engine.setup import load_config

    cfg = load_config(argparse.Namespace(config_file=str(CONFIGS / name), opts=[]))
    cfg.defrost()
    return cfg


def small_config(output: Path) -> "CfgNode":
    """A plain Mask R-CNN that knows nothing, for small pictures of pedestrians."""
    cfg = load("quick_schedules/Base-GAN-RCNN-scratch.yaml")
    cfg.MODEL.GAN.ENABLED, cfg.MODEL.ROI_HEADS.NUM_CLASSES = False, 1
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0, 2.0, 3.0]]
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = "bitmask", (128,), 200
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("penn_fudan_train_a", "penn_fudan_train_b"), ()
    cfg.OUTPUT_DIR = str(output)
    return cfg


def system_config(config: str, mode: str, warm: Path, output: Path, opts: list[str]) -> "CfgNode":
    """A small model with the game and the solver of `config`, from the weights `warm`."""
    cfg, full = small_config(output), load(config)
    cfg.MODEL.WEIGHTS = str(warm)
    cfg.MODEL.ROI_HEADS.NAME = full.MODEL.ROI_HEADS.NAME
    cfg.MODEL.GAN = full.MODEL.GAN.clone()
    cfg.MODEL.GAN.MASK.update(SMALL_MASK[PLAIN_OF.get(config, config)])
    cfg.MODEL.GAN.BOX.update(SMALL_BOX)
    cfg.MODEL.GAN.ENABLED, cfg.MODEL.GAN.START_ITER, cfg.MODEL.GAN.VIS_PERIOD = mode != "plain", 0, 0
    cfg.MODEL.GAN.MODE = "joint" if mode == "plain" else mode
    solver = cfg.SOLVER
    for key in ("OPTIMIZER", "BASE_LR", "MOMENTUM", "WEIGHT_DECAY", "LR_SCHEDULER_NAME", "DISC"):
        solver[key] = full.SOLVER[key]
    solver.WARMUP_ITERS, solver.STEPS, solver.CLIP_GRADIENTS.ENABLED = 0, (), False
    if mode != "plain":
        cfg.merge_from_list(opts)
    return cfg


def train(cfg: "CfgNode", iterations: int, seed: int) -> tuple["AdversarialTrainer", str]:
    """A finished or diverged training, and what stopped it, "" for nothing."""
    from gan_plugin import AdversarialTrainer
    from gan_plugin.data.builtin import prepare_datasets
    from gan_plugin.engine.check_config import NonFiniteLossError

    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SEED = iterations, iterations + 1, seed
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    prepare_datasets(cfg, train=True)
    trainer = AdversarialTrainer(cfg)
    trainer.resume_or_load(resume=False)
    try:
        trainer.train()
    except NonFiniteLossError as error:
        return trainer, str(error).split(". ")[0]
    return trainer, ""


def measure(config: str, mode: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The run's result, from its file if it has one."""
    folder = args.output / f"{Path(config).with_suffix('').as_posix().replace('/', '_')}_{mode}" / f"seed{seed}"
    file = folder / "result.json"
    if not file.is_file():
        opts = args.opts if config in (PIXEL, FEATURE) else []
        cfg = system_config(config, mode, args.output / "warm/model_final.pth", folder, opts)
        trainer, end = train(cfg, args.iterations, seed)
        losses = [value for value, _ in trainer.storage.history("loss_mask").values()]
        last = losses[-(args.iterations // 3) :]
        factors = {
            player: trainer.storage.history(f"gan/{player}/balance").global_avg()
            for player in ("mask", "box")
            if f"gan/{player}/balance" in trainer.storage.histories()
        }
        result = {"loss_mask": sum(last) / max(1, len(last)), "iterations": len(losses), "end": end, "factors": factors}
        (folder / "model_final.pth").unlink(missing_ok=True)
        file.write_text(json.dumps(result) + "\n", encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def table(results: dict[tuple[str, str], list[dict[str, Any]]], seeds: list[int]) -> str:
    """One row a system, one column a seed: loss_mask as a ratio to the plain run's, or where it stopped."""
    count = len(seeds)
    rows = ["| config | mode |" + "".join(f" seed {seed} |" for seed in seeds) + " mean |", "|---" * (count + 3) + "|"]
    for (config, mode), runs in results.items():
        plain = results[PLAIN_OF.get(config, config), "plain"]
        if mode == "plain":
            cells = [f"{run['loss_mask']:.4f}" for run in runs]
            mean = f"{sum(run['loss_mask'] for run in runs) / count:.4f}"
        else:
            ratios = [run["loss_mask"] / base["loss_mask"] for run, base in zip(runs, plain, strict=True)]
            ended = [run["iterations"] if run["end"] else 0 for run in runs]
            cells = [f"stopped at {end}" if end else f"{ratio:.3f}" for end, ratio in zip(ended, ratios, strict=True)]
            mean = "" if any(ended) else f"{sum(ratios) / count:.3f}"
        rows.append(f"| `{config}` | {mode} | {' | '.join(cells)} | {mean} |")
    return "\n".join(rows)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="keeps results and the warm model")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="S")
    parser.add_argument(
        "--iterations", type=positive, default=150, metavar="N", help="of every run from the warm model"
    )
    parser.add_argument("--warm", type=positive, default=400, metavar="N", help="of the plain model before")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> int:
    """Train what is not there yet, and print the table."""
    if not (args.output / "warm/model_final.pth").is_file():
        train(small_config(args.output / "warm"), args.warm, seed=100)
    results: dict[tuple[str, str], list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
    for seed in args.seeds:
        for system in SYSTEMS:
            results[system].append(measure(*system, seed, args))
            print(*system, seed, results[system][-1], file=sys.stderr, flush=True)
    print(table(results, args.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
