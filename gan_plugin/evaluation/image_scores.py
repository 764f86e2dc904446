"""How good sets of generated images are: FID, IS, KID, precision, recall, density and coverage, by formula.

torch-fidelity computes IS, KID, precision and recall. Scores say by which network and from how many samples they are.
"""

import logging
from dataclasses import asdict, dataclass

import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from gan_plugin.errors import UserError

from .image_features import (
    Features,
)

_SPLITS = 10
# a part of fewer samples would have no marginal worth the name
_SMALLEST_SPLIT = 100
_KID_SUBSET = 1000
_KID_SUBSETS = 50
# k of the neighbourhoods: Kynkaanniemi et al. 2019 (arXiv 1904.06991) and Naeem et al. 2020 (arXiv 2002.09797)
_PRECISION_K, _COVERAGE_K = 3, 5
_ROWS = 2000
_logger = logging.getLogger(__name__)
# FID's covariance of 2048 features has no full rank below; its bias grows as samples get fewer
RELIABLE_COUNT = 2048
# the fifth neighbour of a sample needs five others
FEWEST = 6


def frechet_distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """FID: |mu_r - mu_f|^2 + Tr(S_r + S_f - 2 (S_r S_f)^(1/2)) of (N, D) and (M, D) features (Heusel et al. 2017)."""
    means, roots = [], []
    for features in (real.double(), fake.double()):
        means.append(features.mean(0))
        root = (features - means[-1]) / (len(features) - 1) ** 0.5
        roots.append(torch.linalg.qr(root, mode="r").R if len(root) > root.shape[1] else root)
    # S = R'R for either root, so the eigenvalues of S_r S_f are the squared singular values of R_r R_f'; there are no
    # more of them than samples, and no rounding makes them negative
    shared = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    distance = (means[0] - means[1]).square().sum() + sum(root.square().sum() for root in roots) - 2 * shared
    # rounding takes the distance of equal sets a little below zero
    return max(0.0, float(distance))


def inception_score(logits: torch.Tensor) -> tuple[float, float]:
    """IS: exp E KL(p(y|x) || p(y)) of (N, K) logits, mean and deviation over 10 parts (Salimans et al. 2016).

    Fewer than 1000 samples make fewer parts, of 100 or more each. From 1, all alike, to K.
    """
    splits = max(1, min(_SPLITS, len(logits) // _SMALLEST_SPLIT))
    result = isc_features_to_metric(logits, splits)
    return result[KEY_METRIC_ISC_MEAN], result[KEY_METRIC_ISC_STD]


def kernel_distance(real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    """KID: unbiased squared MMD with the cubic kernel, mean and deviation over 50 subsets of at most 1000 samples
    (Binkowski et al. 2018, arXiv 1801.01401). May be a little negative."""
    size = min(_KID_SUBSET, len(real), len(fake))
    options = {"kid_subset_size": size, "kid_subsets": _KID_SUBSETS, "verbose": False}
    result = kid_features_to_metric(fake.double(), real.double(), **options)
    return result[KEY_METRIC_KID_MEAN], result[KEY_METRIC_KID_STD]


def neighbourhoods(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float]:
    """Precision and recall (k = 3), density and coverage (k = 5) of (N, D) and (M, D) features.

    Precision, recall and coverage are shares in [0, 1]; density is 1 for equal distributions and may exceed it.
    """
    options = {"prc_neighborhood": _PRECISION_K, "prc_batch_size": _ROWS, "save_cpu_ram": True, "verbose": False}
    result = prc_features_to_metric(fake, real, **options)
    density, coverage = _density_and_coverage(real, fake)
    return {
        "precision": result[KEY_METRIC_PRECISION],
        "recall": result[KEY_METRIC_RECALL],
        "density": density,
        "coverage": coverage,
    }


def _density_and_coverage(real: torch.Tensor, fake: torch.Tensor) -> tuple[float, float]:
    """How many real neighbourhoods a fake sample lies in, over k; the share of them that holds a fake sample."""
    inside, covered = 0, 0
    for rows in real.split(_ROWS):
        # the k-th other real sample: the first is the sample itself
        radii = torch.cdist(rows, real).kthvalue(_COVERAGE_K + 1).values[:, None]
        within = torch.cdist(rows, fake) <= radii
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return inside / (_COVERAGE_K * len(fake)), covered / len(real)


@dataclass(frozen=True)
class ImageScores:
    """Scores of generated images against real ones.

    Attributes:
        extractor: the full name of the feature network; scores of two networks do not compare.
        label: its short name, under which the scores are in metrics.json.
        real_count, fake_count: samples of either set.
        FID, KID, KID_std: distances, 0 for equal distributions.
        IS, IS_std: Inception Score of the generated images, from 1.
        real_IS: that of the real ones, which the generated ones can be measured by.
        precision, recall, density, coverage: see `measures.neighbourhoods`.
    """

    extractor: str
    label: str
    real_count: int
    fake_count: int
    FID: float
    IS: float
    IS_std: float
    real_IS: float
    KID: float
    KID_std: float
    precision: float
    recall: float
    density: float
    coverage: float

    def results(self) -> dict[str, dict[str, float]]:
        """The numbers as nested results, {"builtin": {"FID": ...}}, for metrics.json."""
        return {self.label: {name: value for name, value in asdict(self).items() if name not in ("extractor", "label")}}


def score(real: Features, fake: Features) -> ImageScores:
    """All scores of `fake` against `real`; warns where there are too few samples to trust them.

    Raises:
        UserError: the features are of two networks, or there are fewer than 6 samples of either kind.
    """
    if real.extractor != fake.extractor:
        raise UserError(
            f"The real images were described by {real.extractor} and the generated ones by {fake.extractor}; describe "
            "both by the same network."
        )
    if min(len(real), len(fake)) < FEWEST:
        raise UserError(
            f"Scores need {FEWEST} images of either kind; there are {len(real)} real and {len(fake)} generated ones."
        )
    if min(len(real), len(fake)) < RELIABLE_COUNT:
        _logger.warning(
            f"FID and the other scores are from {len(real)} real and {len(fake)} generated images; below "
            f"{RELIABLE_COUNT} they are biased and only compare with scores of the same counts."
        )
    mean, deviation = inception_score(fake.logits)
    distance, spread = kernel_distance(real.values, fake.values)
    return ImageScores(
        extractor=fake.extractor,
        label=fake.label,
        real_count=len(real),
        fake_count=len(fake),
        FID=frechet_distance(real.values, fake.values),
        IS=mean,
        IS_std=deviation,
        real_IS=inception_score(real.logits)[0],
        KID=distance,
        KID_std=spread,
        **neighbourhoods(real.values, fake.values),
    )
