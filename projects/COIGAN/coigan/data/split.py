"""Parts of a data set with the same share of every class (thesis 4.2.3), and what must not be torn apart by them."""

import csv
import io
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from coigan.choices import SPLITS
from gan_plugin.data.subsets import apportion
from gan_plugin.errors import UserError
from gan_plugin.files import read_text, write_whole
from gan_plugin.rules import check_name

# a deviation of so much of a class, or of half an object, is none: the solver may stop there
_TOLERANCE = 0.001
# of a fingerprint: side of the grid, and the share of its bits by which pictures of the same thing may differ. Of
# magnetic tiles photographed at several exposures, four of five pairs lie below that, and 29 of 87,000 other pairs.
_GRID, _ALIKE = 16, 0.2
_BLOCK = 1024


def split(
    counts: np.ndarray,
    ratios: Mapping[str, float],
    mode: str = "exact",
    seed: int = 42,
    seconds: float = 30.0,
    groups: np.ndarray | None = None,
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
        groups: (N,) whole numbers; images of the same one go to the same part, so that the sizes of parts are met as
            well as those of groups allow. None lets each image go by itself.

    Returns:
        (N,) indices into `ratios`.

    Raises:
        UserError: an unknown mode, ratios that cannot be, a part without images, or no solution in time.
    """
    check_name("The mode of splitting", mode, SPLITS)
    sizes = part_sizes(len(counts), ratios)
    group_of = np.unique(np.arange(len(counts)) if groups is None else groups, return_inverse=True)[1].ravel()
    held = np.bincount(group_of)
    if len(held) < len(sizes):
        raise UserError(f"{len(held)} groups of images cannot be split by {dict(ratios)}: one part would be empty.")
    if len(sizes) == 1:
        return np.zeros(len(counts), int)
    # objects by class, and images without any, of each group
    clean = (counts.sum(1, keepdims=True) == 0).astype(int)
    totals = np.zeros((len(held), counts.shape[1] + 1), int)
    np.add.at(totals, group_of, np.concatenate([counts, clean], 1))
    rng = np.random.default_rng(seed)
    if mode == "exact":
        parts = _exact(totals, held, sizes, rng, seconds)
    else:
        order = rng.permutation(len(held))
        parts = (_greedy if mode == "greedy" else _random)(totals[:, :-1].sum(1), held, sizes, order)
    if len(np.unique(parts)) < len(sizes):
        raise UserError(
            f"The groups of images leave a part of {dict(ratios)} empty; use another --seed, or --split exact."
        )
    return parts[group_of]


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


def _exact(
    totals: np.ndarray, held: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, seconds: float
) -> np.ndarray:
    # groups with equal counts are interchangeable: how many of each kind go where is all that matters
    kinds, kind_of, kind_sizes = np.unique(
        np.concatenate([totals, held[:, None]], 1), axis=0, return_inverse=True, return_counts=True
    )
    kind_of = kind_of.ravel()
    amounts = _solve(kinds, kind_sizes, sizes, rng, seconds)
    parts = np.empty(len(totals), int)
    for kind, row in enumerate(amounts):
        members = rng.permutation(np.flatnonzero(kind_of == kind))
        parts[members] = np.repeat(np.arange(len(sizes)), row)
    return parts


def _solve(
    kinds: np.ndarray, kind_sizes: np.ndarray, sizes: np.ndarray, rng: np.random.Generator, seconds: float
) -> np.ndarray:
    """(kinds, parts) whole numbers of groups. Unknowns: those row by row, then a slack for each class and part.

    The last column of `kinds` is how many images a group of that kind has; if that is always 1, sizes are met exactly.
    """
    parts, images = len(sizes), int(sizes.sum())
    alone = bool((kinds[:, -1] == 1).all())
    columns_used = kinds[:, :-1] if alone else kinds
    totals = columns_used.T @ kind_sizes
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
        entries = [(kind * parts + part, 1.0) for kind in range(len(kinds))]
        add(entries, *((size, size) if alone else (1, np.inf)))
        for place, label in enumerate(held):
            holding = np.flatnonzero(columns_used[:, label])
            entries = [(k * parts + part, columns_used[k, label] / totals[label]) for k in holding]
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


def _greedy(objects: np.ndarray, held: np.ndarray, sizes: np.ndarray, order: np.ndarray) -> np.ndarray:
    target = sizes / sizes.sum() * objects.sum()
    got, filled = np.zeros(len(sizes)), np.zeros(len(sizes), int)
    parts = np.empty(len(objects), int)
    for group in order:
        score = (target - got - objects[group]) / sizes
        score[filled + held[group] > sizes] = -np.inf
        # a group that fits nowhere goes where there is the most room
        parts[group] = part = int(np.argmax(score if np.isfinite(score).any() else sizes - filled))
        got[part] += objects[group]
        filled[part] += held[group]
    return parts


def _random(objects: np.ndarray, held: np.ndarray, sizes: np.ndarray, order: np.ndarray) -> np.ndarray:
    parts = np.empty(len(objects), int)
    before = np.cumsum(held[order]) - held[order]
    parts[order] = np.searchsorted(np.cumsum(sizes), before, side="right")
    return parts


def fingerprint(pixels: np.ndarray) -> bytes:
    """Whether (H, W, 3) uint8 gets brighter to the right and downwards, cell by cell of a grid: 64 bytes.

    It hardly changes with size, brightness and compression (dHash; here 16x16 cells in both directions).
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    right = cv2.resize(grey, (_GRID + 1, _GRID), interpolation=cv2.INTER_AREA).astype(int)
    down = cv2.resize(grey, (_GRID, _GRID + 1), interpolation=cv2.INTER_AREA).astype(int)
    return np.packbits([np.diff(right, axis=1) > 0, np.diff(down, axis=0) > 0]).tobytes()


def near_duplicates(prints: Sequence[bytes]) -> list[tuple[int, int]]:
    """The pairs (first, second) whose fingerprints differ in a fifth of their bits or less."""
    if not prints:
        return []
    bits = np.unpackbits(np.array([np.frombuffer(each, np.uint8) for each in prints]), axis=1) * np.float32(2) - 1
    # flat pictures, such as black ones, have nothing to be told by
    marked = np.asarray((bits > 0).any(1))
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(bits), _BLOCK):
        rows = bits[start : start + _BLOCK]
        far = (bits.shape[1] - rows @ bits.T) / 2 / bits.shape[1]
        first, second = np.nonzero((far <= _ALIKE) & marked & marked[start : start + _BLOCK, None])
        first += start
        pairs += zip(first[first < second].tolist(), second[first < second].tolist(), strict=True)
    return pairs


def write_groups(path: Path, names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> None:
    """Write a CSV of image and group of all images that are in a pair, which `groups_of` reads."""
    ends = np.array(pairs, int).reshape(-1, 2)
    links = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (len(names), len(names)))
    number = connected_components(links, directed=False)[1]
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "group"])
    rows.writerows((names[place], int(number[place])) for place in sorted(set(ends.ravel().tolist())))
    write_whole(path, table.getvalue())


def groups_of(names: Sequence[str], rule: str, within: int = 0) -> tuple[np.ndarray, str]:
    """Which images show the same thing, such as one part photographed several times.

    Args:
        names: the images' paths in their source, with slashes.
        rule: a regular expression, whose groups in parentheses (or else its whole match) are the same in such images;
            or the path of a CSV with the columns image (its path, or its file name where that is unique) and group.
        within: of groups that are whole numbers: neighbours that differ by no more are one group.

    Returns:
        (N,) numbers of groups, an image that the rule says nothing of being alone; and a sentence about them.

    Raises:
        UserError: the rule cannot be read or says nothing of any image, or `within` is asked for without numbers.
    """
    keys = _listed(names, Path(rule)) if rule.lower().endswith(".csv") else _matched(names, rule)
    if within:
        keys = _joined(keys, within)
    number = {key: place for place, key in enumerate(dict.fromkeys(key for key in keys if key is not None))}
    alone = iter(range(len(number), len(number) + len(names)))
    groups = np.array([next(alone) if key is None else number[key] for key in keys], int)
    said = f"{len(number)} groups of {len(names) - keys.count(None)} images"
    if keys.count(None):
        said += f"; of {keys.count(None)} images --group says nothing"
    if len(number) == len(names) - keys.count(None):
        said += "; each has one image alone, so that nothing is held together"
        if not within and all(key.isdecimal() for key in keys if key is not None):
            said += " (numbers that are close may be joined by --group-within N)"
    return groups, said


def _matched(names: Sequence[str], rule: str) -> list[str | None]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(f"--group {rule!r} is no regular expression ({error}), nor the path of a CSV.") from error
    found = [pattern.search(name) for name in names]
    if not any(found):
        raise UserError(f"--group {rule!r} is found in the name of no image, such as {names[0]}; correct it.")
    # parentheses that have taken no part in the match say nothing
    parts = [match and (tuple(part or "" for part in match.groups()) or (match[0],)) for match in found]
    return ["/".join(part) if part and any(part) else None for part in parts]


def _listed(names: Sequence[str], path: Path) -> list[str | None]:
    lines = read_text(path).splitlines()
    delimiter = next((sign for sign in ";\t" if lines and sign in lines[0]), ",")
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(name, []).append(name)
        if "/" in name:
            by_name.setdefault(PurePosixPath(name).name, []).append(name)
    group_of: dict[str, str] = {}
    for line, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
        if not row or line == 1 and row[0].strip() not in by_name:
            continue
        if len(row) < 2:
            raise UserError(f"{path}, line {line}: there is no group; write an image and its group.")
        name, group = row[0].strip(), row[1].strip()
        meant = by_name.get(name, [])
        if len(meant) > 1 and name not in meant:
            raise UserError(f"{path}, line {line}: {name} may be {meant[0]} or {meant[1]}; write its path.")
        image = name if name in meant else next(iter(meant), None)
        if image is not None and group_of.setdefault(image, group) != group:
            raise UserError(f"{path}, line {line}: {name} is in the groups {group_of[image]} and {group}; keep one.")
    if not group_of:
        raise UserError(f"{path} names none of the images, such as {names[0]}; write image and group on each line.")
    return [group_of.get(name) for name in names]


def _joined(keys: Sequence[str | None], within: int) -> list[str | None]:
    texts = [
        "" if key is None else "".join(str(part) for part in (key if isinstance(key, tuple) else (key,)))
        for key in keys
    ]
    if within < 0 or not all(text.isdecimal() for text, key in zip(texts, keys, strict=True) if key is not None):
        raise UserError("--group-within is 0 or more, and for a --group whose groups are whole numbers.")
    numbers = sorted({int(text) for text in texts if text})
    first: dict[int, int] = {}
    for place, number in enumerate(numbers):
        near = place > 0 and number - numbers[place - 1] <= within
        first[number] = first[numbers[place - 1]] if near else number
    return [None if key is None else str(first[int(key)]) for key in keys]


def check_apart(train: Set[Path], test: Set[Path], name: str = "test") -> None:
    """Raise a UserError if a picture is in both sets of resolved paths: what is tested on has not been trained on."""
    if shared := train & test:
        raise UserError(f"The {name} set holds {min(shared)}, which is trained on; use other images for the {name}.")
