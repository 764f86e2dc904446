"""Which drawing explains which arms of a comparison."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fvcore.common.config import CfgNode

from car_gan.data.crop_dataset import read_records
from gan_plugin.visualization.curves import Curve

from .diagrams import latent_scheme, latent_steps, mask_rcnn, self_attention


def parts_used(arms: Mapping[str, CfgNode]) -> list[tuple[Curve, list[str]]]:
    """The drawings of those parts that arms use, each with the names of these arms.

    Args:
        arms: name -> config.
    """
    latent = {name: cfg.MODEL.LOGAN for name, cfg in arms.items() if cfg.MODEL.LOGAN.ENABLED}
    found = [
        (mask_rcnn(), _those(arms, _was_filtered)),
        (self_attention(), _those(arms, _attends)),
        (latent_scheme(), list(latent)),
    ]
    for alpha, beta in dict.fromkeys((node.ALPHA, node.BETA) for node in latent.values()):
        users = [name for name, node in latent.items() if (alpha, beta) == (node.ALPHA, node.BETA)]
        found.append((latent_steps(alpha, beta), users))
    return [(drawing, names) for drawing, names in found if names]


def _those(arms: Mapping[str, CfgNode], use: Callable[[CfgNode], bool]) -> list[str]:
    return [name for name, cfg in arms.items() if use(cfg)]


def _was_filtered(cfg: CfgNode) -> bool:
    records = read_records(Path(cfg.DATASETS.CROPS))
    return any(record.get("detector_score") is not None for record in records)


def _attends(cfg: CfgNode) -> bool:
    return bool(cfg.MODEL.GENERATOR.ATTENTION or cfg.MODEL.DISCRIMINATOR.ATTENTION)
