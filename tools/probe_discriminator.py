#!/usr/bin/env python
"""Before an adversarial training: could its discriminator tell this model's masks from the annotated ones?

    python tools/probe_discriminator.py --config-file FILE --weights MODEL.pth [--player mask] [--batches 60] \\
        [--steps 1000] [--json OUT.json] [KEY VALUE ...]

The model draws on its training images and stands still. A fresh discriminator learns, as MODEL.GAN and SOLVER.DISC say,
from three quarters of the images; its right verdicts are counted on those and on the others. Near 50 % on the others
it has found nothing that the model could learn from it; far above that only on the images that it has seen, it knows
those by heart; near 100 % at once, something gives the masks away, most often that they are soft (MODEL.GAN.MASK.FAKE).
"""

import argparse
import json
import sys
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from _command_line import Parser, positive, run_command_line

if TYPE_CHECKING:
    from gan_plugin.comparison.probe import Telling


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the adversarial training")
    parser.add_argument("--weights", required=True, metavar="FILE", help="the model that it would begin with")
    parser.add_argument("--player", choices=("mask", "box"), default="mask", help="which discriminator")
    parser.add_argument("--batches", type=positive, default=60, metavar="N", help="of training images to draw on")
    parser.add_argument("--steps", type=positive, default=1000, metavar="N", help="of the discriminator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="change the config")
    return parser.parse_args(arguments)


def found(args: argparse.Namespace) -> "tuple[list[Telling], str]":
    """The numbers, and a line about what they are of."""
    from detectron2.modeling import build_model
    from detectron2.utils.env import seed_all_rng
    from detectron2.utils.events import EventStorage

    from gan_plugin.comparison.probe import collect, probe
    from gan_plugin.data.builtin import prepare_datasets
    from gan_plugin.engine.checkpoint import SafeCheckpointer
    from gan_plugin.engine.optimizers import build_discriminator_optimizer
    from gan_plugin.engine.setup import load_config
    from gan_plugin.engine.trainer import AdversarialTrainer
    from gan_plugin.errors import UserError

    cfg = load_config(args)
    cfg.defrost()
    cfg.MODEL.GAN.ENABLED, cfg.MODEL.GAN.START_ITER, cfg.MODEL.GAN.WARMUP_ITERS = True, 0, 0
    # a discriminator whose verdict counts nothing would not be asked
    player = cfg.MODEL.GAN[args.player.upper()]
    player.WEIGHT = player.WEIGHT or 1.0
    prepare_datasets(cfg, train=True)
    seed_all_rng(max(0, cfg.SEED))
    model = build_model(cfg)
    if args.player not in model.adversaries:
        raise UserError(f"This config has no {args.player} discriminator; set MODEL.GAN.{args.player.upper()}.ENABLED.")
    adversary = model.adversaries[args.player]
    fresh = deepcopy(adversary.discriminator.state_dict())
    checkpointer = SafeCheckpointer(model)
    checkpointer.weights_key = "--weights"
    checkpointer.load(args.weights, checkpointables=[])
    adversary.discriminator.load_state_dict(fresh)
    with EventStorage(0):
        shown = collect(model, args.player, islice(AdversarialTrainer.build_train_loader(cfg), args.batches))
    optimizer = build_discriminator_optimizer(cfg, adversary.discriminator.parameters())
    tellings = probe(adversary, optimizer, shown, args.steps)
    parameters = sum(each.numel() for each in adversary.discriminator.parameters())
    about = (
        f"{type(adversary.discriminator).__name__}, {parameters} parameters, {len(shown.image)} samples of "
        f"{int(shown.image.max()) + 1} images, {shown.batch} a step"
    )
    return tellings, about


def work(args: argparse.Namespace) -> None:
    """Print the table, and write it to --json."""
    from gan_plugin.files import write_whole

    tellings, about = found(args)
    print(about)
    print(f"{'steps':>7} {'seen images':>12} {'unseen images':>14}   share of right verdicts, chance is 50 %")
    for each in tellings:
        print(f"{each.steps:>7} {100 * each.seen:>10.1f} % {100 * each.unseen:>12.1f} %")
    if args.json:
        text = json.dumps({"about": about, "steps": [asdict(each) for each in tellings]}, indent=1)
        write_whole(args.json, text, "Choose another --json.")


def main(arguments: list[str] | None = None) -> int:
    work(parse(arguments))
    return 0


command = partial(run_command_line, parse, work)

if __name__ == "__main__":
    sys.exit(command())
