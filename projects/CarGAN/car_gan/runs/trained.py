"""A trained generator from the folder of its run."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from car_gan.config import load_config
from car_gan.game import Latents
from car_gan.networks.build import DISCRIMINATOR, GENERATOR, build_generator, build_networks, load_network, read_weights
from car_gan.pictures import GREEN, Colour, checked_colour
from gan_plugin.engine.checkpoint import AVERAGE, FINAL, LAST, SUFFIX, best_name
from gan_plugin.errors import UserError, as_user_error

from .training import CONFIG, PROVENANCE

# the first that is there: the best in FID, the average, the last
_CHOICE = [f"{name}{SUFFIX}" for name in (best_name("fid"), AVERAGE, FINAL)]


@dataclass(frozen=True)
class Trained:
    """A generator in evaluation mode, on the device of its config.

    Attributes:
        run, weights: the folder of the run and the file in it.
        key: the colour that its crops lay on, and so its images.
        cfg: of the run.
        generator: z (N, latent) -> (N, C, S, S) in [-1, 1].
    """

    run: Path
    weights: Path
    cfg: CfgNode
    generator: nn.Module
    key: Colour = GREEN

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.generator.parameters()).device

    @torch.no_grad()
    def images(self, z: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """(N, latent) -> (N, C, S, S) in [-1, 1] on the CPU."""
        return torch.cat([self.generator(part.to(self.device)).float().cpu() for part in z.split(batch)])

    @property
    def labels(self) -> list[str]:
        """The names of the labels that the generator can be asked for."""
        return list(self.cfg.MODEL.LABEL.NAMES)

    def latents(self, count: int, seed: int, truncation: float = 0.0, label: str = "") -> torch.Tensor:
        """The same (count, latent) for the same seed, with `label` in all of them, or "" for labels drawn by shares.

        Raises:
            UserError: the generator does not know the label.
        """
        if label and label not in self.labels:
            known = f"it knows {', '.join(self.labels)}" if self.labels else "it was trained without MODEL.LABEL.KIND"
            raise UserError(f"The generator of {self.run} cannot draw a car with the label '{label}': {known}.")
        numbers = torch.full((count,), self.labels.index(label)) if label else None
        return Latents.of(self.cfg).fixed(count, self.device, seed, truncation, numbers)


def config_of(run: Path, opts: list[str] | None = None) -> CfgNode:
    """The config of a run with KEY VALUE pairs over it; a UserError where there is no run."""
    config = run / CONFIG
    if not config.is_file():
        raise UserError(f"{run} holds no {CONFIG}; name the OUTPUT_DIR of a training.")
    return load_config(str(config), list(opts or []))


def load_trained(run: Path, weights: str = "", opts: list[str] | None = None) -> Trained:
    """The generator of a run.

    Args:
        run: OUTPUT_DIR of the training.
        weights: a file in it; "" for the best in FID, or else the average, or else the last.
        opts: KEY VALUE pairs over the run's config, such as MODEL.DEVICE cpu.

    Raises:
        UserError: there is no such run or file, or the weights are of another generator.
    """
    cfg = config_of(run, opts)
    names = [weights] if weights else [*_CHOICE, _last(run)]
    found = next((run / name for name in names if name and (run / name).is_file()), None)
    if found is None:
        raise UserError(f"{run} holds no {' nor '.join(filter(None, names))}; train longer, or name another file.")
    generator = build_generator(cfg)
    load_network(generator, read_weights(found), GENERATOR, found)
    return Trained(run, found, cfg, generator.to(cfg.MODEL.DEVICE).eval(), _key_of(run))


def load_discriminator(trained: Trained) -> nn.Module | None:
    """The run's discriminator from the same file, in evaluation mode; None where the file has the generator alone."""
    weights = read_weights(trained.weights)
    if not any(name.startswith(DISCRIMINATOR) for name in weights):
        return None
    network = build_networks(trained.cfg).discriminator
    load_network(network, weights, DISCRIMINATOR, trained.weights)
    return network.to(trained.device).eval()


def _last(run: Path) -> str:
    tag = run / LAST
    return tag.read_text(encoding="utf-8").strip() if tag.is_file() else ""


def terms_of(run: Path) -> str:
    """The terms that the training has noted for its weights and samples.

    Raises:
        UserError: it has not, or the note is broken.
    """
    with as_user_error(
        f"{run / PROVENANCE} is missing or broken",
        "the terms of its samples are unknown; restore it",
        OSError,
        ValueError,
        KeyError,
    ):
        return json.loads((run / PROVENANCE).read_text(encoding="utf-8"))["licence"]


def _key_of(run: Path) -> Colour:
    try:
        return checked_colour(json.loads((run / PROVENANCE).read_text(encoding="utf-8"))["crops"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        # a run of before did not note it
        return GREEN
