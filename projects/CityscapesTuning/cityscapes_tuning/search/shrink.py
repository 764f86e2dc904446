"""What a trial that ran out of memory tries next."""

from pathlib import Path
from typing import Any

from gan_plugin.config_files import look_up, read_yaml

SMALLEST_SIDE = 64
_FACTOR = 0.75


def shrunk(settings: dict[str, Any], config: Path) -> tuple[dict[str, Any], str] | None:
    """Settings to try after an out-of-memory error, and what they change in words; None if nothing is left to try.

    First half the batch with twice the accumulation, which keeps the step's gradient; at batch 1 three quarters of the
    training images' size.

    Args:
        settings: of the trial.
        config: the YAML file that they go over.
    """
    base = read_yaml(config.read_bytes(), f"The config {config}")

    def value(key: str) -> Any:
        return settings[key] if key in settings else look_up(base, key)

    batch = value("SOLVER.IMS_PER_BATCH")
    alternating = value("MODEL.GAN.ENABLED") and value("MODEL.GAN.MODE") == "alternating"
    if batch > 1 and batch % 2 == 0 and not alternating:
        accumulate = 2 * (value("SOLVER.ACCUMULATE") or 1)
        change = {"SOLVER.IMS_PER_BATCH": batch // 2, "SOLVER.ACCUMULATE": accumulate}
        return change, f"batches of {batch // 2}, {accumulate} of them a step"
    sides = [max(SMALLEST_SIDE, round(side * _FACTOR)) for side in value("INPUT.MIN_SIZE_TRAIN")]
    longest = round(value("INPUT.MAX_SIZE_TRAIN") * _FACTOR)
    if sides == list(value("INPUT.MIN_SIZE_TRAIN")):
        return None
    return {"INPUT.MIN_SIZE_TRAIN": sides, "INPUT.MAX_SIZE_TRAIN": longest}, f"images of {sides[0]} pixels"


def batch_of(settings: dict[str, Any], config_text: str) -> tuple[int, str]:
    """Images of a step, and the optimizer, by the settings over the config's YAML text."""
    base = read_yaml(config_text, "The config of the study")
    images = settings.get("SOLVER.IMS_PER_BATCH", look_up(base, "SOLVER.IMS_PER_BATCH"))
    accumulate = settings.get("SOLVER.ACCUMULATE", look_up(base, "SOLVER.ACCUMULATE"))
    optimizer = settings.get("SOLVER.OPTIMIZER", look_up(base, "SOLVER.OPTIMIZER"))
    return int(images) * int(accumulate or 1), str(optimizer)
