"""The generator alone, for use elsewhere: TorchScript that needs none of this code, with its terms beside it.

    cars.py export output/dcgan --output exported

Writes generator.ts (z -> images in [-1, 1]), generator.pth (weights), config.yaml, LICENCE_NOTE.txt, export.json, and
checks that generator.ts draws what the generator draws. First it looks for memorised crops as `cars.py evaluate` does,
and leaves memorisation.json and neighbours.png. z is Gaussian or uniform, as export.json says, and for a conditional
generator followed by a one-hot vector of its labels.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from .sample import add_run_arguments, licence_of_run

_ADVICE = "Choose another --output, or free some disk space."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    add_run_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")


def run(args: argparse.Namespace) -> None:
    """Check, trace, compare, write."""
    import torch

    from car_gan.data.build import LICENCE
    from car_gan.runs.evaluation import check_copies
    from car_gan.runs.trained import load_trained
    from car_gan.runs.training import CONFIG
    from gan_plugin.errors import UserError
    from gan_plugin.files import write_whole

    trained = load_trained(args.run_folder, args.weights, args.opts)
    licence = licence_of_run(trained.run)
    check = check_copies(trained, args.output)
    z = trained.latents(4, args.seed)
    with torch.no_grad():
        traced = torch.jit.trace(trained.generator, z)
        # another number of latents than it was traced with
        difference = float((traced(z[:3]) - trained.generator(z[:3])).abs().max())
    if difference > 1e-4:
        raise UserError(f"The traced generator differs by {difference:.2g} from the original; nothing was exported.")
    facts = {
        "latent": {"size": trained.cfg.MODEL.LATENT.SIZE, "distribution": trained.cfg.MODEL.LATENT.DISTRIBUTION},
        # z is followed by one of them as a one-hot vector
        "labels": trained.labels,
        "image": {"size": trained.cfg.INPUT.SIZE, "channels": trained.cfg.INPUT.CHANNELS, "range": [-1, 1]},
        "key": trained.key,
        "weights": str(trained.weights),
        "memorisation": check.sentence(),
        "licence": licence,
    }
    weights = {"model": trained.generator.state_dict()}
    write_whole(args.output / "generator.ts", partial(torch.jit.save, traced), _ADVICE)
    write_whole(args.output / "generator.pth", partial(torch.save, weights), _ADVICE)
    for name, text in {
        CONFIG: trained.cfg.dump(),
        LICENCE: licence + "\n",
        "export.json": json.dumps(facts, indent=1) + "\n",
    }.items():
        (args.output / name).write_text(text, encoding="utf-8")
    print(f"The generator of {trained.weights} in {args.output}. {check.sentence()} {licence}")
