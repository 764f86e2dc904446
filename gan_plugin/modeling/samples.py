"""What the generator drew and what it should have drawn: samples, from tensors that the heads compute anyway."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Instances

from gan_plugin.config import check_choice

from .masks_of_some import has_mask, taught_masks

_ANTIALIASING = 4
# the least and the greatest side of a query's mask in pixels
_SIDES = (28, 128)


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
        answer: to both players, if it is known; see `Adversary.asked_once`.
    """

    real: torch.Tensor
    fake: torch.Tensor
    samples: Any
    answer: "Answer | None" = None

    @classmethod
    def unseen(cls, samples: Samples) -> "RealFakePair":
        """Samples that no discriminator will look at."""
        nothing = torch.zeros(0)
        return cls(nothing, nothing, samples)

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class Answer:
    """What a discriminator says to a pair, as a scalar loss of the generator without weight, and where it pulls.

    Attributes:
        loss: the value.
        at_fake: its gradient at the fakes, (R, C, S, S); None where there is none, here and below.
        weights, at_weights: of the discriminator, and the gradient at each.
    """

    loss: torch.Tensor
    at_fake: torch.Tensor | None
    weights: list[torch.nn.Parameter]
    at_weights: list[torch.Tensor | None]


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


def mask_iou(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """IoU in [0, 1] of masks (R, M, M) given as logits (positive means inside) and as truth in [0, 1]; shape (R,).

    Two empty masks have IoU 0.
    """
    predicted, actual = logits > 0, truth > 0.5
    intersection = (predicted & actual).flatten(1).sum(1)
    union = (predicted | actual).flatten(1).sum(1)
    return intersection / union.clamp(min=1)


def greedy_match(instances: list[Instances], iou: torch.Tensor, threshold: float) -> torch.Tensor:
    """Match predictions one to one with annotated instances, in descending order of objectness.

    A proposal's candidate is the instance that Detectron2's matcher gave it, which settles class and box; it takes it
    if their masks overlap by `threshold` and no better scored proposal has it. Proposals that are ground-truth boxes
    added by Detectron2 carry the highest objectness and so come first.

    Args:
        instances: one a image, with fields gt_boxes, gt_classes and, from an RPN, objectness_logits.
        iou: (R,) mask IoU of every proposal with its instance, images one after another.
        threshold: least IoU of a match, in [0, 1].

    Returns:
        (R,) bool.
    """
    matched = torch.zeros_like(iou, dtype=torch.bool)
    start = 0
    for image in instances:
        # Detectron2 gives an image without annotations no gt_ fields at all.
        if len(image):
            own = slice(start, start + len(image))
            matched[own] = _match_image(image, iou[own], threshold)
            start = own.stop
    return matched


def _match_image(image: Instances, iou: torch.Tensor, threshold: float) -> torch.Tensor:
    boxes = image.gt_boxes.tensor
    identity = torch.cat([boxes, image.gt_classes[:, None].to(boxes.dtype)], dim=1)
    truth_of = torch.unique(identity, dim=0, return_inverse=True)[1].tolist()
    scores = image.objectness_logits if image.has("objectness_logits") else iou
    matched = torch.zeros_like(iou, dtype=torch.bool)
    taken: set[int] = set()
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        if iou[index] >= threshold and truth_of[index] not in taken:
            taken.add(truth_of[index])
            matched[index] = True
    return matched


@dataclass(frozen=True)
class MaskSampler:
    """Makes `MaskSamples`.

    Attributes:
        real: "binary" or "antialiased" truth for the discriminator.
        matching: "proposal" (every prediction is matched) or "greedy" (one to one, by score and mask IoU).
        match_iou: the least mask IoU of a greedy match.
        logits: the layer that draws the logits, such as "mask_head.predictor"; "" for the one that looks like it.
        box_only: whether some objects have no mask, and their box in its place.
        has_teacher: whether a mean teacher has drawn theirs.
        margin, side: of a query's mask, which is cut to its object's box: by which part of its side the box is widened
            on each side, and to how many pixels it is brought.
    """

    real: str = "binary"
    matching: str = "proposal"
    match_iou: float = 0.5
    logits: str = ""
    margin: float = 0.0
    side: int = 28
    box_only: bool = False
    has_teacher: bool = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "MaskSampler":
        """The sampler that `cfg.MODEL.GAN.MASK` describes.

        Raises:
            UserError: a key has an unknown value.
        """
        mask = cfg.MODEL.GAN.MASK
        real = check_choice("MODEL.GAN.MASK.REAL", mask.REAL)
        matching = check_choice("MODEL.GAN.MASK.MATCHING", mask.MATCHING)
        side = min(max(mask.INPUT_SIZE, _SIDES[0]), _SIDES[1])
        return cls(
            real,
            matching,
            mask.MATCH_IOU,
            mask.LOGITS,
            mask.MARGIN,
            side,
            mask.BOX_ONLY,
            bool(cfg.MODEL.GAN.UNPAIRED.TEACHER_WEIGHT),
        )

    def __call__(
        self,
        logits: torch.Tensor,
        instances: list[Instances],
        crops: torch.Tensor,
        loss: torch.Tensor,
        output: torch.Tensor,
        features: tuple[torch.Tensor, ...] = (),
    ) -> MaskSamples:
        """
        Args:
            logits: (R, M, M) of the ground-truth class.
            instances: the foreground proposals with their annotations, one a image.
            crops: (R, M, M) binary truth in the proposals' boxes.
            loss, output: the model's own losses, and the logits that they were computed from.
            features: see `MaskSamples`.
        """
        with torch.no_grad():
            truth = crops.to(logits.dtype)
            if self.matching == "greedy":
                matched = greedy_match(instances, mask_iou(logits, truth), self.match_iou)
            else:
                matched = torch.ones(len(truth), dtype=torch.bool, device=logits.device)
            if self.real == "antialiased":
                fine = [crop_truth(image, logits.shape[-1] * _ANTIALIASING) for image in instances]
                truth = F.avg_pool2d(torch.cat(fine).to(logits.dtype)[:, None], _ANTIALIASING)[:, 0]
            rois = convert_boxes_to_pooler_format([image.proposal_boxes for image in instances])
            known = torch.cat([has_mask(image) for image in instances]) if self.box_only else None
            side = logits.shape[-1]
            taught = torch.cat([taught_masks(image, side) for image in instances]) if self.has_teacher else None
            matched = matched if known is None else matched & known
        classes = classes_of(instances)
        seen = features, loss, output
        return MaskSamples(logits, truth, matched, classes, rois, *seen, has_mask=known, taught=taught)


def crop_truth(image: Instances, side: int) -> torch.Tensor:
    """(R, side, side) bool: the annotated masks of one image's proposals, each in its proposal's box."""
    boxes = image.proposal_boxes.tensor
    if len(image) == 0:
        return torch.zeros(0, side, side, dtype=torch.bool, device=boxes.device)
    return image.gt_masks.crop_and_resize(boxes, side).to(boxes.device)


def classes_of(instances: list[Instances]) -> torch.Tensor:
    """(R,) ground-truth classes of all images."""
    return torch.cat([image.gt_classes for image in instances])


def logits_of_true_class(logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    """(R, C, M, M), C = 1 for class-agnostic masks, to (R, M, M)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(logits), device=logits.device), classes_of(instances)]
