"""Steps of CarGAN's DCGAN and of its latent optimisation beside the plain PyTorch loop of the same size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from car_gan.config import load_config
from car_gan.game import build_game
from car_gan.networks.build import build_networks
from detectron2.utils.events import EventStorage
from torch import nn

from benchmarks.timing import interleave, summarise
from gan_plugin.engine.image_game import ImageStep

CONFIGS = Path(__file__).resolve().parent / "configs"

PLAIN, DCGAN, LOGAN = "plain PyTorch DCGAN loop", "CarGAN dcgan", "CarGAN logan"


def measure_cars(batch: int, rounds: int, device: str, width: int = 64) -> dict[str, Any]:
    """Seconds of a training step of the plain loop, of P1 and of P7, all with the same networks and batch.

    Args:
        batch: images of a step, 64x64.
        rounds: how often each is timed.
        device: "cpu" or "cuda".
        width: of both networks; 64 is P1.

    Returns:
        The table, images a second, P1's speed over the plain loop's, and P7's step as a multiple of P1's.
    """
    images = torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sizes = ["MODEL.GENERATOR.WIDTH", str(width), "MODEL.DISCRIMINATOR.WIDTH", str(width), "MODEL.DEVICE", device]
    configs = {
        name: load_config(str(CONFIGS / f"{preset}.yaml"), sizes)
        for name, preset in ((DCGAN, "dcgan"), (LOGAN, "logan"))
    }
    with EventStorage():
        actions = {PLAIN: _plain_step(configs[DCGAN], images)}
        actions |= {name: _our_step(cfg, images) for name, cfg in configs.items()}
        table = summarise(interleave(actions, rounds, device), PLAIN)
    return {
        "table": table,
        "images_per_second": {name: batch / row["seconds"] for name, row in table.items()},
        "dcgan_speed_vs_plain": 1 / table[DCGAN]["ratio_median"],
        "logan_step_vs_dcgan": table[LOGAN]["seconds"] / table[DCGAN]["seconds"],
        "batch": batch,
        "width": width,
    }


def show_cars(report: dict[str, Any]) -> str:
    """The numbers in words."""
    speeds = ", ".join(f"{name} {speed:.1f}" for name, speed in report["images_per_second"].items())
    return (
        f"Cars 64x64, batch {report['batch']}, width {report['width']}, images a second: {speeds}; CarGAN's DCGAN "
        f"runs at {report['dcgan_speed_vs_plain']:.2f} times the plain loop's speed, and latent optimisation "
        f"takes {report['logan_step_vs_dcgan']:.2f} steps of it for one."
    )


def _our_step(cfg: Any, images: torch.Tensor) -> Callable[[], None]:
    torch.manual_seed(0)
    game = build_game(cfg)
    step = ImageStep(game, list(game.phases()), _Again(list(images)), accumulate=1, amp=False)
    step.iter = 0
    return step.run_step


class _Again:
    """The same batch for ever."""

    def __init__(self, batch: list[torch.Tensor]) -> None:
        self._batch = batch

    def __iter__(self) -> "_Again":
        return self

    def __next__(self) -> list[torch.Tensor]:
        return self._batch


def _plain_step(cfg: Any, images: torch.Tensor) -> Callable[[], None]:
    """What one writes after a first course: both networks, two Adams, binary cross entropy; nothing is measured."""
    torch.manual_seed(0)
    device = cfg.MODEL.DEVICE
    networks = build_networks(cfg)
    generator, discriminator = (
        network.to(device, memory_format=torch.contiguous_format)
        for network in (networks.generator, networks.discriminator)
    )
    options = {"lr": 1e-4, "betas": (0.5, 0.999), "weight_decay": 1e-3}
    for_g = torch.optim.Adam(generator.parameters(), **options)
    for_d = torch.optim.Adam(discriminator.parameters(), **options)
    loss = nn.BCEWithLogitsLoss()

    def step() -> None:
        real = torch.stack(list(images)).to(device)
        ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
        discriminator.zero_grad()
        loss(discriminator(real), ones).backward()
        fake = generator(torch.randn(len(real), 100, device=device))
        loss(discriminator(fake.detach()), zeros).backward()
        for_d.step()
        generator.zero_grad()
        error = loss(discriminator(fake), ones)
        error.backward()
        for_g.step()
        error.item()

    return step
