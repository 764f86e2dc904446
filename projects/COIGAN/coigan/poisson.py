"""Poisson image editing: an object's gradients, the image's colours (Perez et al. 2003, doi 10.1145/882262.882269)."""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve


def poisson_blend(image: np.ndarray, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`image` whose values under `mask` have the gradients of `pixels` there and continue the image at its outline.

    The object's pixels are known under the mask only, so the gradient across its outline is taken as zero. Beyond the
    image's own border nothing is asked for.

    Args:
        image, pixels: (H, W, 3) uint8.
        mask: (H, W) bool.

    Returns:
        (H, W, 3) uint8; `image` outside of the mask. A mask of the whole image has no outline: `pixels`.
    """
    if mask.all():
        return pixels.copy()
    places = np.argwhere(mask)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(len(places))
    own = pixels.astype(float)
    right = np.zeros((len(places), 3))
    degree = np.zeros(len(places))
    rows, columns = [], []
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        beside = places + step
        there = ((beside >= 0) & (beside < mask.shape)).all(1)
        here, beside = np.flatnonzero(there), beside[there]
        degree[here] += 1
        inside = mask[beside[:, 0], beside[:, 1]]
        inner, outer = here[inside], here[~inside]
        q, border = beside[inside], beside[~inside]
        right[inner] += own[places[inner, 0], places[inner, 1]] - own[q[:, 0], q[:, 1]]
        right[outer] += image[border[:, 0], border[:, 1]]
        rows.append(inner)
        columns.append(number[q[:, 0], q[:, 1]])
    coupled = np.concatenate(rows), np.concatenate(columns)
    diagonal = np.arange(len(places))
    matrix = csr_matrix(
        (
            np.concatenate([degree, -np.ones(len(coupled[0]))]),
            (np.concatenate([diagonal, coupled[0]]), np.concatenate([diagonal, coupled[1]])),
        )
    )
    result = image.copy()
    solved = spsolve(matrix.tocsc(), right).reshape(len(places), 3)
    result[mask] = solved.round().clip(0, 255).astype(np.uint8)
    return result
