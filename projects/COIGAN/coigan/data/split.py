"""Parts of a data set with the same share of every class (thesis 4.2.3)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

from coigan.choices import SPLITS
from gan_plugin.data.subsets import apportion
from gan_plugin.errors import UserError

# a deviation of so much of a class, or of half an object, is none: the solver may stop there
_TOLERANCE = 0.001


def split(
    counts: np.ndarray, ratios: Mapping[str, float], mode: str = "exact", seed: int = 42, seconds: float = 30.0
) -> np.ndarray:
    """Which part each image goes to.

    Args:
        counts: (N, n) objects of each class in each image.
        ratios: name of a part -> its share; they are normalised to a sum of 1.
        mode: "exact" solves an integer programme (the thesis' better way) for the least relative deviation of every
            class, images without objects counting as one more class. "greedy" is the source's own rule: each image, in
            a random order, goes to the part with the most objects, of whatever class, wanting for each of its places,
            so it is blind to the class. "random" looks at nothing.
        seed: of all that is left to chance.
        seconds: after which "exact" takes the best solution so far.

    Returns:
        (N,) indices into `ratios`.

    Raises:
        UserError: an unknown mode, ratios that cannot be, a part without images, or no solution in time.
    """
    if mode not in SPLITS:
        raise UserError(f"There is no mode {mode!r} of splitting; use one of {', '.join(SPLITS)}.")
    sizes = part_sizes(len(counts), ratios)
    if len(sizes) == 1:
        return np.zeros(len(counts), int)
    rng = np.random.default_rng(seed)
    if mode == "exact":
        return _exact(counts, sizes, rng, seconds)
    order = rng.permutation(len(counts))
    if mode == "greedy":
        return _greedy(counts, sizes, order)
    parts = np.empty(len(counts), int)
    parts[order] = np.repeat(np.arange(len(sizes)), sizes)
    return parts


def part_sizes(images: int, ratios: Mapping[str, float]) -> np.ndarray:
    """Whole numbers of images for each part, whose sum is `images`; the largest remainders are rounded up.

    Raises:
        UserError: see `split`.
    """
    shares = np.array(list(ratios.values()), float)
    if not len(shares) or not np.isfinite(shares).all() or (shares <= 0).any():
        raise UserError(f"The ratios {dict(ratios)} must all be above 0; leave a part out to have none of it.")
    sizes = np.array(apportion([round(share) for share in shares / shares.sum() * 1e12], images))
    if (sizes < 1).any():
        raise UserError(f"{images} images cannot be split by {dict(ratios)}: one part would be empty.")
    return sizes


def split_report(counts: np.ndarray, parts: np.ndarray, ratios: Mapping[str, float]) -> dict[str, Any]:
    """Sizes, objects by class, and by how many percentage points each class misses its part's share of the images."""
    totals = counts.sum(0)
    report: dict[str, Any] = {}
    for place, name in enumerate(ratios):
        own = parts == place
        share = float(own.mean())
        objects = counts[own].sum(0)
        errors = [100 * (int(o) / int(t) - share) if t else None for o, t in zip(objects, totals, strict=True)]
        report[name] = {"images": int(own.sum()), "share": share, "objects": objects.tolist(), "error_points": errors}
    every = [abs(error) for part in report.values() for error in part["error_points"] if error is not None]
    return {"parts": report, "largest_error_points": max(every, default=0.0)}


def _exact(counts: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, seconds: float) -> np.ndarray:
    # images with equal counts are interchangeable: how many of each kind go where is all that matters
    clean = (counts.sum(1, keepdims=True) == 0).astype(int)
    kinds, kind_of, kind_sizes = np.unique(
        np.concatenate([counts, clean], 1), axis=0, return_inverse=True, return_counts=True
    )
    kind_of = kind_of.ravel()
    amounts = _solve(kinds, kind_sizes, sizes, rng, seconds)
    parts = np.empty(len(counts), int)
    for kind, row in enumerate(amounts):
        members = rng.permutation(np.flatnonzero(kind_of == kind))
        parts[members] = np.repeat(np.arange(len(sizes)), row)
    return parts


def _solve(
    kinds: np.ndarray, kind_sizes: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, seconds: float
) -> np.ndarray:
    """(kinds, parts) whole numbers of images. Unknowns: those row by row, then a slack for each class and part."""
    parts, images = len(sizes), int(sizes.sum())
    totals = kinds.T @ kind_sizes
    held = np.flatnonzero(totals)
    unknowns, slacks = len(kinds) * parts, len(held) * parts
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    lower: list[float] = []
    upper: list[float] = []

    def add(entries: list[tuple[int, float]], low: float, high: float) -> None:
        rows.extend([len(lower)] * len(entries))
        columns.extend(column for column, _ in entries)
        values.extend(value for _, value in entries)
        lower.append(low)
        upper.append(high)

    for kind, size in enumerate(kind_sizes):
        add([(kind * parts + part, 1.0) for part in range(parts)], size, size)
    for part, size in enumerate(sizes):
        add([(kind * parts + part, 1.0) for kind in range(len(kinds))], size, size)
        for place, label in enumerate(held):
            entries = [(k * parts + part, kinds[k, label] / totals[label]) for k in np.flatnonzero(kinds[:, label])]
            slack, target = unknowns + place * parts + part, size / images
            tolerance = max(_TOLERANCE, 0.5 / totals[label])
            add([*entries, (slack, -1.0)], -np.inf, target + tolerance)
            add([*entries, (slack, 1.0)], target - tolerance, np.inf)
    matrix = coo_matrix((values, (rows, columns)), (len(lower), unknowns + slacks))
    cost = np.concatenate([rng.random(unknowns) * 1e-9, np.ones(slacks)])
    result = milp(
        cost,
        constraints=LinearConstraint(matrix.tocsr(), lower, upper),
        integrality=np.concatenate([np.ones(unknowns), np.zeros(slacks)]),
        bounds=Bounds(0, np.concatenate([np.repeat(kind_sizes, parts), np.full(slacks, np.inf)])),
        options={"time_limit": seconds, "mip_rel_gap": 1e-3},
    )
    if result.x is None:
        raise UserError(f"No exact split was found in {seconds:g} s; allow more time, or use the mode greedy.")
    return np.round(result.x[:unknowns]).astype(int).reshape(len(kinds), parts)


def _greedy(counts: np.ndarray, sizes: np.ndarray, order: np.ndarray) -> np.ndarray:
    totals = counts.sum(1)
    target = sizes / sizes.sum() * totals.sum()
    held, filled = np.zeros(len(sizes)), np.zeros(len(sizes), int)
    parts = np.empty(len(counts), int)
    for image in order:
        score = (target - held - totals[image]) / sizes
        score[filled >= sizes] = -np.inf
        parts[image] = part = int(np.argmax(score))
        held[part] += totals[image]
        filled[part] += 1
    return parts
