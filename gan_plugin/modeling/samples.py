"""What the generator drew and what it should have drawn, from tensors that the heads compute anyway."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class MaskSamples:
    """The masks of the foreground RoIs of one forward pass, R of them over all images.

    Attributes:
        logits: (R, M, M), the predicted mask of the ground-truth class; carries the generator's gradient.
        truth: (R, M, M), the annotated mask in the same box on the same grid, values in [0, 1].
        matched: (R,) bool, the predictions that count as matched with their truth.
        classes: (R,) the ground-truth classes.
        rois: (R, 5) rows [image index, x0, y0, x1, y1] in pixels.
        features: the detached levels (N, C, H_i, W_i) that the RoIs lie on, if a discriminator looks at them.
        loss, output: the sum of the model's own losses, and what they were computed from that a layer has drawn: of
            all losses those of the masks alone have a gradient there.
        cut_from: what `logits` were cut from, if they are not as the layer has drawn them.
        has_mask: (R,) bool, the objects whose truth is a mask and not just a box; None if all of them are such.
        taught: (R, M, M) in [0, 1], what the model's own average has drawn of them in the same boxes, if it was asked.
        pictures: (N, 3, H, W), the images in RGB with values in [0, 1], if anybody looks at them.
    """

    logits: torch.Tensor
    truth: torch.Tensor
    matched: torch.Tensor
    classes: torch.Tensor
    rois: torch.Tensor
    features: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None
    output: torch.Tensor | None = None
    cut_from: torch.Tensor | None = None
    has_mask: torch.Tensor | None = None
    taught: torch.Tensor | None = None
    pictures: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def known(self) -> torch.Tensor:
        """(R,) bool, `has_mask` in any case."""
        return torch.ones_like(self.matched) if self.has_mask is None else self.has_mask

    def at(self, index: torch.Tensor) -> "MaskSamples":
        """Those at the places `index`, or where it is True."""
        names = ["logits", "truth", "matched", "classes", "rois"]
        names += [name for name in ("has_mask", "taught") if getattr(self, name) is not None]
        fields: dict[str, Any] = {name: getattr(self, name)[index] for name in names}
        return replace(self, **fields)

    @classmethod
    def joined(cls, parts: "Sequence[MaskSamples]") -> "MaskSamples":
        """All of them, with whatever else the first of them has."""
        if len(parts) == 1:
            return parts[0]
        fields = ["logits", "truth", "matched", "classes", "rois"]
        fields += ["taught"] if all(part.taught is not None for part in parts) else []
        together: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in fields}
        return replace(parts[0], **together, has_mask=torch.cat([part.known for part in parts]))

    @property
    def drawn(self) -> torch.Tensor:
        """Where the pull of an adversary is measured, in the units of `output`."""
        return self.logits if self.cut_from is None else self.cut_from

    @property
    def judged(self) -> torch.Tensor:
        """Where losses of the samples begin."""
        return self.logits

    def zero(self) -> torch.Tensor:
        """A zero that depends on every logit."""
        return self.logits.sum() * 0


@dataclass(frozen=True)
class BoxSamples:
    """The boxes of the foreground proposals of one forward pass, R of them over all images.

    Attributes:
        predicted: (R, 4) [x0, y0, x1, y1] in pixels, decoded and clipped; carries the generator's gradient.
        truth: (R, 4), the annotated boxes.
        images: (R,) index of each box's image in the batch.
        classes, features, loss, output: as for `MaskSamples`, with the deltas of the box regression.
    """

    predicted: torch.Tensor
    truth: torch.Tensor
    images: torch.Tensor
    classes: torch.Tensor
    features: tuple[torch.Tensor, ...] = ()
    loss: torch.Tensor | None = None
    output: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def drawn(self) -> torch.Tensor:
        """Where the pull of an adversary is measured: at the deltas, since pixels compare with no loss of the head."""
        return self.predicted if self.output is None else self.output

    @property
    def judged(self) -> torch.Tensor:
        """As `drawn`: nothing else begins at the corners in pixels."""
        return self.drawn

    def zero(self) -> torch.Tensor:
        """A zero that depends on every coordinate."""
        return self.predicted.sum() * 0


Samples = MaskSamples | BoxSamples


@dataclass(frozen=True)
class RealFakePair:
    """What a discriminator is asked to tell apart, R of either.

    Attributes:
        real: (R, C, S, S) without gradient.
        fake: (R, C, S, S) with the generator's gradient.
        samples: where they come from, MaskSamples or BoxSamples.
    """

    real: torch.Tensor
    fake: torch.Tensor
    samples: Any

    @classmethod
    def unseen(cls, samples: Samples) -> "RealFakePair":
        """Samples that no discriminator will look at."""
        nothing = torch.zeros(0)
        return cls(nothing, nothing, samples)

    def __len__(self) -> int:
        return len(self.samples)


def reconstruction_loss(samples: MaskSamples, kind: str = "mae") -> torch.Tensor:
    """The error between predicted probabilities and truth over the matched pairs.

    A zero that still reaches every logit where nothing matched.

    Args:
        samples: the pairs.
        kind: "mae", the mean absolute error (thesis 4.3.3, eq 4.4); "bce", the binary cross entropy, which is Mask
            R-CNN's own loss (He et al. 2017, section 3); "dice", 1 - Dice of each pair with squares in the denominator
            (Milletari et al. 2016, section 3), on average.
    """
    matched = samples.matched
    if not bool(matched.any()):
        return samples.zero()
    # float32, since a mean in float16 could not hold the scaled gradient that it starts from
    logits, truth = samples.logits[matched].float(), samples.truth[matched].float()
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, truth)
    drawn = logits.sigmoid()
    if kind == "mae":
        return (drawn - truth).abs().mean()
    both, all_squares = (drawn * truth).flatten(1).sum(1), (drawn.square() + truth.square()).flatten(1).sum(1)
    return 1 - (2 * both / all_squares.clamp(min=1e-6)).mean()
