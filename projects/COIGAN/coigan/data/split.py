"""Two parts of a data set with the same share of every class (thesis 4.2.3, which names integer programming)."""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, hstack, identity, vstack

from gan_plugin.errors import UserError

_SECONDS = 20


def fair_split(counts: np.ndarray, share: float, seed: int = 42) -> np.ndarray:
    """Which images go into the first part: round(share * N) of them, with `share` of the objects of every class.

    The sum over classes of the relative deviations is minimised; among equal solutions the seed chooses.

    Args:
        counts: (N, n) objects of each class in each image.
        share: of the first part, between 0 and 1.
        seed: of the order in which images come.

    Returns:
        (N,) bool.

    Raises:
        UserError: the share leaves a part empty.
    """
    number, classes = counts.shape
    size = round(share * number)
    if not 0 < size < number:
        raise UserError(f"A share of {share} of {number} images leaves one part empty; choose another --train-share.")
    order = np.random.default_rng(seed).permutation(number)
    totals = counts.sum(0)
    held = np.flatnonzero(totals)
    shuffled = csr_matrix(counts[order][:, held].T / np.maximum(totals[held], 1)[:, None])
    # one slack a class bounds its deviation from both sides
    slack = identity(len(held), format="csr")
    matrix = vstack([hstack([shuffled, -slack]), hstack([shuffled, slack])])
    target = np.full(len(held), share)
    infinite = np.full(len(held), np.inf)
    balance = LinearConstraint(matrix, np.concatenate([-infinite, target]), np.concatenate([target, infinite]))
    exact = np.concatenate([np.ones(number), np.zeros(len(held))])[None]
    cost = np.concatenate([np.random.default_rng(seed).random(number) * 1e-9, np.ones(len(held))])
    result = milp(
        cost,
        constraints=[balance, LinearConstraint(exact, size, size)],
        integrality=np.concatenate([np.ones(number), np.zeros(len(held))]),
        bounds=Bounds(0, np.concatenate([np.ones(number), np.full(len(held), np.inf)])),
        options={"time_limit": _SECONDS, "mip_rel_gap": 1e-3},
    )
    if result.x is None:
        raise UserError(
            f"No split into {size} and {number - size} images was found in {_SECONDS} s; try another share."
        )
    first = np.zeros(number, bool)
    first[order] = result.x[:number] > 0.5
    return first
