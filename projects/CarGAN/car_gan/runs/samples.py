"""What a trained generator gives away: cars as pictures, and itself for use elsewhere."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from car_gan.output import made_folder
from car_gan.pictures import LICENCE, PICTURES, SAMPLES
from gan_plugin.errors import UserError
from gan_plugin.files import write_whole

from .pictures import pixels_of, sheet, write_picture
from .trained import Trained, terms_of
from .training import CONFIG

_SHEET = 64
_OURS = re.compile(r"car_-?\d+_\d{6,}\.png")


def write_samples(
    trained: Trained, output: Path, count: int, seed: int, truncation: float = 0.0, label: str = ""
) -> tuple[Path, str]:
    """Draw cars into `output`/cars in place of those of an earlier call, and say in samples.json what is there.

    Args:
        trained: the generator.
        output: folder, made if need be.
        count: of cars.
        seed, truncation, label: as in `Trained.latents`.

    Returns:
        The folder of the cars, and the terms that they are under.

    Raises:
        UserError: that folder holds other pictures, the label is unknown, or nothing can be written.
    """
    licence, folder = terms_of(trained.run), output / PICTURES[1]
    if strangers := [path.name for path in sorted(folder.glob("*")) if not _OURS.fullmatch(path.name)]:
        raise UserError(f"{folder} holds {strangers[0]}, which cars.py sample has not drawn; choose another --output.")
    images = trained.images(trained.latents(count, seed, truncation, label))
    # whole before it takes the place of what was there
    fresh = made_folder(output / f"{folder.name}.part")
    for path in fresh.iterdir():
        path.unlink()
    for index, pixels in enumerate(pixels_of(images)):
        write_picture(fresh / f"car_{seed}_{index:06d}.png", pixels)
    (output / SAMPLES).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    write_picture(output / "sheet.png", sheet(images[:_SHEET], 8))
    facts = {
        "cars": count,
        **_form(trained),
        "run": str(trained.run),
        "weights": trained.weights.name,
        "seed": seed,
        "truncation": truncation,
        "label": label,
        "licence": licence,
    }
    write_whole(output / SAMPLES, json.dumps(facts, indent=1) + "\n")
    return folder, licence


def write_generator(trained: Trained, output: Path, verdict: str, licence: str, seed: int) -> None:
    """Write generator.ts, generator.pth, config.yaml, LICENCE_NOTE.txt and export.json.

    Args:
        trained: the generator.
        output: an existing folder.
        verdict: on memorised crops.
        licence: the terms.
        seed: of the latents by which the traced generator is compared with the original.

    Raises:
        UserError: they differ, or a file cannot be written.
    """
    z = trained.latents(4, seed)
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
        "image": {**_form(trained), "range": [-1, 1]},
        "weights": str(trained.weights),
        "memorisation": verdict,
        "licence": licence,
    }
    write_whole(output / "generator.ts", partial(torch.jit.save, traced))
    write_whole(output / "generator.pth", partial(torch.save, {"model": trained.generator.state_dict()}))
    write_whole(output / CONFIG, trained.cfg.dump())
    write_whole(output / LICENCE, licence + "\n")
    write_whole(output / "export.json", json.dumps(facts, indent=1) + "\n")


def _form(trained: Trained) -> dict[str, Any]:
    return {"size": trained.cfg.INPUT.SIZE, "channels": trained.cfg.INPUT.CHANNELS, "key": trained.key}
