"""All scores of one set of generated images, which say by which network and from how many samples they are."""

import logging
from dataclasses import asdict, dataclass

from gan_plugin.errors import UserError

from .features import Features
from .measures import frechet_distance, inception_score, kernel_distance, neighbourhoods

_logger = logging.getLogger(__name__)
# FID's covariance of 2048 features has no full rank below; its bias grows as samples get fewer
RELIABLE_COUNT = 2048
# the fifth neighbour of a sample needs five others
FEWEST = 6


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
