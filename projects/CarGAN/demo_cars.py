#!/usr/bin/env python
"""Cars from nothing on a CPU: toy street scenes, crops, two GANs in miniature, scores, new cars in scenes, a report.

    python projects/CarGAN/demo_cars.py [--out output/demo-cars] [--scenes 120] [--iters 300] [--seed 0]

The last line on stdout holds the scores and the path of the report. A later demo in the same folder replaces it.
"""

import argparse
import json
import sys
from pathlib import Path

# so that the demo runs from a checkout, wherever it is called
sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

from _command_line import Parser, positive, run_command_line  # noqa: E402

PROJECT = Path(__file__).resolve().parent
ROOT = PROJECT.parents[1]
# the presets in miniature: a few hundred steps of narrow networks say that all parts work, not how good a preset is
NARROW = {
    "MODEL.GENERATOR.WIDTH": 16,
    "MODEL.DISCRIMINATOR.WIDTH": 16,
    "MODEL.GAN.EMA.DECAY": 0.98,
    "INPUT.FLIP": True,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.DISC.BASE_LR": 0.0005,
    "SOLVER.WEIGHT_DECAY": 0.0,
    "SOLVER.DISC.WEIGHT_DECAY": 0.0,
    "SOLVER.CHECKPOINT_EPOCHS": 20,
    "TEST.SAMPLES": 256,
}
# attention over 32x32 positions would cost 16 times as much as over 16x16. Weights of the preset's Xavier size begin as
# saturated noise, which takes hundreds of steps to fade; smaller ones begin as grey. So short a run also needs higher
# rates.
SMALL_RESNET = {
    "MODEL.INIT": "normal",
    "MODEL.GENERATOR.WIDTH": 12,
    "MODEL.DISCRIMINATOR.WIDTH": 12,
    "SOLVER.BASE_LR": 0.002,
    "SOLVER.DISC.BASE_LR": 0.001,
    "MODEL.GENERATOR.BLOCKS": "(1,1,1,1)",
    "MODEL.DISCRIMINATOR.BLOCKS": "(1,1,1,1)",
    "MODEL.GENERATOR.ATTENTION": "(16,)",
    "MODEL.DISCRIMINATOR.ATTENTION": "(16,)",
}
# arm -> the share of --iters that it does, and what else makes it small
ARMS: dict[str, tuple[float, dict[str, object]]] = {"dcgan": (1.0, {}), "resnet18_sa_logan": (1.2, SMALL_RESNET)}

# after so few steps samples are blurred, and so are accepted as they are; the toy's far cars leave little room
EASY = ["MIX", 1.0, "MATTING.MAX_FUZZY", 0.9, "PLACE.MAX_ENLARGE", 4, "PLACE.ON_ROAD", 0.7]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("output/demo-cars"), metavar="DIR")
    parser.add_argument("--scenes", type=int, default=120, metavar="N", help="toy scenes to cut cars from")
    parser.add_argument("--iters", type=positive, default=300, metavar="N", help="DCGAN's; the ResNet: a fifth more")
    parser.add_argument("--seed", type=int, default=0, help="of the toy scenes")
    return parser.parse_args(arguments)


def work(args: argparse.Namespace) -> None:
    """All steps, and a line with the scores."""
    from gan_plugin.demos import clear_folder, run_script, shown_path

    clear_folder(args.out)
    scenes, crops, comparison = args.out / "scenes", args.out / "crops", args.out / "comparison"
    # ten have three whole cars, too few to learn from where cars stand
    sizes = ["--train", args.scenes, "--val", 40, "--seed", args.seed, "--size", "512x256"]
    run_script("1/6 Toy street scenes", ROOT / "tools/make_toy_cityscapes.py", [scenes, *sizes])
    toy = ["--config-file", PROJECT / "configs/build_toy.yaml", "MODE", "green_crop", "FILTER.MIN_VISIBLE", 0.6]
    do_verb("2/6 Crops", "build", ["--cityscapes", scenes, "--output", crops, *toy])
    for number, (arm, (share, smaller)) in enumerate(ARMS.items(), start=3):
        iterations = max(1, round(args.iters * share))
        narrow = [part for pair in {**NARROW, **smaller}.items() for part in pair]
        epochs = ["TEST.EVAL_EPOCHS", 8, "VIS_EPOCHS", 4, "SOLVER.MAX_ITER", iterations]
        config = ["--config-file", PROJECT / f"configs/{arm}.yaml", "DATASETS.CROPS", crops]
        do_verb(f"{number}/6 Training {arm}", "train", [*config, "OUTPUT_DIR", args.out / arm, *narrow, *epochs])
    runs = [args.out / arm for arm in ARMS]
    title = "Demo: two GANs in miniature on toy cars"
    do_verb("5/6 Scores and report", "compare", [*runs, "--output", comparison, "--title", title])
    do_verb("6/6 New cars", "sample", [runs[0], "--count", 32, "--output", args.out / "new_cars"])
    scenes_of = ["--samples", args.out / "new_cars/cars", "--cityscapes", scenes, "--output", args.out / "composed"]
    do_verb("6/6 New cars in scenes", "compose", [*scenes_of, "SPLITS", "('val',)", *EASY])
    scores = {run.name: read(comparison / run.name / "scores.json") for run in runs}
    distances = ", ".join(f"{name} {found['FID']:.2f}" for name, found in scores.items())
    network = scores[runs[0].name]["extractor"]
    count = len(read(args.out / "composed/annotations.json")["images"])
    report = shown_path(comparison / "report.html")
    print(f"demo-cars: FID by {network}: {distances}; {count} composed scenes; report {report}")


def do_verb(title: str, verb: str, arguments: list[object]) -> None:
    """Run a verb of cars.py as `run_script` does."""
    from gan_plugin.demos import run_script

    run_script(title, PROJECT / "cars.py", [verb, *arguments])


def read(path: Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(run_command_line(parse, work))
