"""Which crops train and which are held out."""

import hashlib
from collections.abc import Sequence

from gan_plugin.errors import UserError

SPLITS = ("train", "held_out", "all")


def choose(groups: Sequence[str], split: str, seed: int, held_out: float) -> list[int]:
    """Indices of the crops in a split, in their order.

    Cars of one source image share light, street and maybe the car itself, so an image is held out as a whole. Images
    are ranked by a hash of their name and the seed: a data set that grows keeps nearly all of its split.

    Args:
        groups: of every crop the name of its source image.
        split: one of SPLITS.
        seed: of the ranking.
        held_out: share of the images, in [0, 1); at least one where there are two or more and it is not 0.

    Raises:
        UserError: the split is unknown, or the share is out of range.
    """
    if split not in SPLITS:
        raise UserError(f"The split '{split}' is unknown; choose one of {', '.join(SPLITS)}.")
    if not 0 <= held_out < 1:
        raise UserError(f"The held-out share is {held_out}; set it to a number from 0 to below 1.")
    if split == "all":
        return list(range(len(groups)))
    ranked = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    count = min(len(ranked) - 1, max(1, round(held_out * len(ranked)))) if held_out else 0
    apart = set(ranked[: max(0, count)])
    return [index for index, name in enumerate(groups) if (name in apart) == (split == "held_out")]
