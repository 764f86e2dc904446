"""Has the generator drawn new cars, or copied its crops? Nearest neighbours in feature space."""

from dataclasses import asdict, dataclass

import torch

from gan_plugin.evaluation.image_features import Features

# a sample closer to a training crop than all but this share of the held-out crops are is taken for a copy
_QUANTILE = 0.01
_ALARM = 0.1
# held-out crops, of which the share above is one
_ENOUGH = 100
_ROWS = 2000


@dataclass(frozen=True)
class Memorisation:
    """Distances in feature space, measured by those of real cars that were not trained on.

    Attributes:
        extractor: the feature network.
        samples, crops, held_out: counts.
        median_distance: of a sample to its nearest training crop.
        held_out_distance: of a held-out crop to its nearest training crop; NaN without held-out crops.
        copies: share of the samples that are nearer to a training crop than 99 % of the held-out crops are.
    """

    extractor: str
    samples: int
    crops: int
    held_out: int
    median_distance: float
    held_out_distance: float
    copies: float

    def sentence(self) -> str:
        """What it means for a release."""
        if not self.held_out:
            return "There are no held-out crops to compare with, so nothing is known of memorised crops."
        verdict = (
            "samples may repeat training crops: look at the neighbours before any release"
            if self.copies > _ALARM
            else "no sign of memorised crops"
        )
        if self.held_out < _ENOUGH:
            verdict += f" (a rough guess: {_ENOUGH} held-out crops would tell 1 % of them)"
        return (
            f"{self.copies:.1%} of the samples are nearer to a training crop than 99 % of the held-out "
            f"crops are (median distance {self.median_distance:.3g}, of held-out crops {self.held_out_distance:.3g}; "
            f"{self.samples} samples, {self.crops} training crops, {self.held_out} held out; "
            f"{self.extractor}): {verdict}."
        )

    def to_dict(self) -> dict[str, object]:
        """All numbers and the sentence."""
        return {**asdict(self), "verdict": self.sentence()}


def nearest(features: torch.Tensor, among: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D), (M, D) -> distance (N,) to and index (N,) of the nearest of `among`."""
    parts = [torch.cdist(rows, among).min(dim=1) for rows in features.split(_ROWS)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def memorisation(fake: Features, train: Features, held_out: Features | None) -> Memorisation:
    """Compare generated images with the crops they were learnt from, and with crops nobody has learnt from."""
    distances, _ = nearest(fake.values, train.values)
    reference, copies = float("nan"), float("nan")
    if held_out is not None:
        apart, _ = nearest(held_out.values, train.values)
        reference = float(apart.median())
        copies = float((distances < apart.quantile(_QUANTILE)).float().mean())
    return Memorisation(
        fake.extractor,
        len(fake),
        len(train),
        0 if held_out is None else len(held_out),
        float(distances.median()),
        reference,
        copies,
    )
